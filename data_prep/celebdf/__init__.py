"""Celeb-DF v1 and v2, and Celeb-DF++."""
