"""Everything that makes the embedded model `nano`; the product imports nothing of it."""
