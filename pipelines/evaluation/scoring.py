"""pass@k, unbiased: the chance that at least one of k samples is right, estimated from n of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping


def pass_at_k(samples: int, right: int, k: int) -> float:
    """`1 - C(n - c, k) / C(n, k)` (Chen and others 2021, section 2.1) for n samples, c right, 1 <= k <= n."""
    if samples - right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - right + 1, samples + 1))


def summarize(results: Mapping[str, Iterable[bool]], ks: Iterable[int]) -> dict[str, dict[str, float]]:
    """Mean and standard error over problems of each pass@k; `results` has whether each sample of a task passed."""
    counts = [(len(passed), sum(passed)) for passed in map(list, results.values())]
    summary = {}
    for k in ks:
        scores = [pass_at_k(samples, right, k) for samples, right in counts]
        mean = sum(scores) / len(scores)
        variance = sum((score - mean) ** 2 for score in scores) / max(len(scores) - 1, 1)
        summary[f"pass@{k}"] = {"score": mean, "standard_error": math.sqrt(variance / len(scores))}
    return summary
