"""Gives a compiled model its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from replit.runtime.engine import Engine, Executable
from replit.runtime.target import CPU, Target
from replit.runtime.weight_memory import WeightTypes, materialize
from weights.tensor import Tensor


def bind_weights(
    compiled: Any,
    tensors: Mapping[str, Tensor],
    types: WeightTypes,
    mapped: bool,
    device: Any = None,
    target: Target = CPU,
) -> Any:
    """The bound graph of a target, ready to execute. The compiled file was checked against `types` before.

    With a `device` the weights go to its memory one after the other, straight from the file where `mapped`.
    """
    from max.driver import Buffer
    from max.dtype import DType

    registry = {}
    for name, data in materialize(tensors, types, mapped):
        encoding, shape = types[name]
        dtype = DType.uint8 if target.own_kernels else DType[str(encoding)]
        weight = Buffer.from_numpy(data).view(dtype, target.stored_shape(encoding, shape))
        registry[name] = weight if device is None else weight.to(device)
    model = Engine.get().session.init(compiled, weights_registry=registry)
    return Executable(model) if device is None else model
