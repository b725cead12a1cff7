"""The DeepFake Detection Challenge data set, in full."""
