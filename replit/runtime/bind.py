"""Gives a compiled model its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from replit.cpu.panels import PANEL
from replit.runtime.engine import Engine, Executable
from replit.runtime.target import CPU, DECODER, LAY_OUT, Target
from replit.runtime.weight_memory import PIECE, Bytes, WeightTypes, aligned, materialize, source
from weights.files.mapped_file import release_pages
from weights.tensor import Encoding, Tensor


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

    registry: dict[str, Any] = {}
    panels = {}
    for name, tensor in tensors.items():
        encoding, shape = types[name]
        stored_shape = target.stored_shape(encoding, shape)
        if target.in_panels(shape):  # filled when the graphs that do it are there
            panels[name] = aligned(math.prod(stored_shape)).reshape(stored_shape)
            registry[name] = Buffer.from_numpy(panels[name])
            continue
        dtype = DType.uint8 if target.own_kernels else DType[str(encoding)]
        weight = Buffer.from_numpy(materialize(tensor, encoding, mapped)).view(dtype, stored_shape)
        registry[name] = weight if device is None else weight.to(device)
    models = Engine.get().session.init_all(compiled, weights_registry=registry)
    for name, memory in panels.items():
        encoding, _ = types[name]
        lay_out(models[LAY_OUT + encoding], tensors[name], encoding, memory)
    return Executable(models[DECODER]) if device is None else models[DECODER]


def lay_out(model: Any, tensor: Tensor, encoding: Encoding, panels: Bytes) -> None:
    """Fills `panels`, `[panels, bytes]`, piece by piece: no page of a mapped file stays beside its copy."""
    from max.driver import Buffer

    rows = source(tensor, encoding).reshape(tensor.shape[0], -1)
    height = max(1, PIECE // panels.shape[1])  # panels of a piece
    for first in range(0, len(panels), height):
        part = rows[first * PANEL : (first + height) * PANEL]
        model.execute(Buffer.from_numpy(panels[first : first + height]), Buffer.from_numpy(part))
        release_pages(part)
