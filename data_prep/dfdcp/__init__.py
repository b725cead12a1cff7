"""The DFDC Preview data set."""
