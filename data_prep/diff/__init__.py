"""DiFF, faces that diffusion models made or edited, read by lists."""
