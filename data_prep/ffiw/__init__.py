"""FFIW-10K, several faces a frame."""
