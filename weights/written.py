"""The encodings that models are written and computed in, in words: the command line's help must not wait for NumPy."""

from __future__ import annotations

# From the largest to the smallest. What else GGUF files hold is read only (weights/tensor.py).
WRITTEN = ("float32", "bfloat16", "q8_0", "q4_0", "q4_k", "q6_k")
