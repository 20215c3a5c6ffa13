"""Writes a safetensors file, one tensor after the other, so that no more than one is in memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from weights.convert import encode_tensor
from weights.tensor import Encoding, Tensor, stored_bytes

_KINDS = {Encoding.FLOAT32: "F32", Encoding.FLOAT16: "F16", Encoding.BFLOAT16: "BF16"}
_ALIGNMENT = 8  # of the data, as the safetensors library has it


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Sequence[Tensor]],
    encodings: Mapping[str, Encoding],
    report: Callable[[str], None] = lambda name: None,
) -> None:
    """Write to `path` under each name the rows of some tensors one after the other, in a float encoding.

    `report` is called with each name. Raises UserError for values that the encoding cannot hold.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, parts in tensors.items():
        shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        size = stored_bytes(shape, encodings[name])
        header[name] = {"dtype": _KINDS[encodings[name]], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for name, parts in tensors.items():
            for part in parts:
                encode_tensor(part, encodings[name]).tofile(file)
            report(name)
