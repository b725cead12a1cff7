"""Whatever DeepfakeBench has processed: its JSON, with rgb folders or LMDB."""
