"""DF40, forty manipulations, cropped by its owners."""
