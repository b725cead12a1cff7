"""DeeperForensics-1.0, whose reals are FaceForensics++'s."""
