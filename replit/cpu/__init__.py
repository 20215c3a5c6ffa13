"""The graph's steps on the CPU: operations of our own, and their kernels."""
