"""Refact-1.6B: what differs from the Replit Code models. Cache, attention and kernels are those of `replit`."""
