"""Pretrained weights: one module for each source, each giving the flat parameter names of `models/`."""
