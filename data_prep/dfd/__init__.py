"""DeepFakeDetection (Google and Jigsaw), downloaded with FaceForensics++."""
