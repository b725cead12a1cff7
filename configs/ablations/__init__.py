"""One experiment a file, each a difference from `base`; `python -m benchmarks.ablation` runs and tabulates them."""
