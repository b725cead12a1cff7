"""Names and layouts of published files, one kind a module: their tensors as ours."""
