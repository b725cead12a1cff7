"""SJEDD's own folders and label lists."""
