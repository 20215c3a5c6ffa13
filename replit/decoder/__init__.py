"""What every architecture of the family shares: what one is, its graph but for the blocks, names, keys, encodings."""
