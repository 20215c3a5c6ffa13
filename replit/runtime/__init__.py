"""How any decoder runs: compiled model, passes, key-value cache, weights in memory."""
