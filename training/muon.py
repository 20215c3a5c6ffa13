"""Muon (Jordan et al. 2024) for matrices of few shapes: those of one shape take their step together.

`torch.optim.Muon` takes one matrix after the other, some twenty small kernels each; on a GPU that is a tenth of the
time of a model as small as nano. The step is the same: momentum, five Newton-Schulz iterations towards the nearest
orthogonal matrix in bfloat16 (training/precision.py), scaled to the size of an AdamW step (Liu et al. 2025).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from training.precision import fast_dtype

ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrices: Tensor) -> Tensor:
    """About the nearest orthogonal matrix to each of [N, rows, columns], by Newton-Schulz."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(fast_dtype(matrices.device.type))
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


class StackedMuon(torch.optim.Optimizer):
    """Muon over the given matrices; `lr` of its one group may be set before each step."""

    def __init__(self, matrices: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One update of every matrix."""
        for group in self.param_groups:
            by_shape: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                by_shape[p.shape].append(p)
            for same in by_shape.values():
                self._step_of(same, group)

    def _step_of(self, same: list[Tensor], group: dict[str, float]) -> None:
        gradients = torch.stack([p.grad for p in same if p.grad is not None])
        state = self.state[same[0]]
        momentum = state.setdefault("momentum", torch.zeros_like(gradients))
        momentum.lerp_(gradients, 1 - group["momentum"])
        updates = orthogonalised(gradients.lerp(momentum, group["momentum"]))
        scale = 0.2 * max(same[0].shape) ** 0.5
        torch._foreach_mul_(same, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(
            same, [u.to(p.dtype) for u, p in zip(updates, same, strict=True)], alpha=-group["lr"] * scale
        )
