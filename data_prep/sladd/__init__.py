"""SLADD's own folders of FaceForensics++ crops and masks."""
