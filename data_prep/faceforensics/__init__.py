"""FaceForensics++ and the embedded toy set, which has its layout."""
