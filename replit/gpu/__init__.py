"""The graph's steps on a GPU: MAX's operations, device graphs, memory."""
