"""FFSC, face images with semantic attributes, of SO-DFD and SJEDD."""
