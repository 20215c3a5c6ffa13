"""Functional correctness of completions: problems, programs run in confinement, pass@k."""
