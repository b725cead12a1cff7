"""DiffusionFace, images that diffusion models made, read by lists."""
