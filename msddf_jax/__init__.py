"""Deepfake detection in JAX: forgeries made on the accelerator, tables that can be believed."""

__version__ = "0.1.0"
