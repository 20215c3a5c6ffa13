"""In which encoding each weight is computed with, and its bytes in memory in that encoding.

Bytes are read into anonymous memory, which decodes a third faster than pages mapped from the file; mapped weights are
for machines short of memory. A weight that already has its encoding is never converted.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from replit.decoder.encodings import COMPUTED_IN, choose_encodings
from weights.errors import UserError
from weights.files.mapped_file import release_pages
from weights.tensor import Encoding, Tensor, stored_bytes
from weights.written import WRITTEN

# What the CPU kernels multiply with.
COMPUTABLE = tuple(map(Encoding, WRITTEN))

Bytes = npt.NDArray[np.uint8]
WeightTypes = Mapping[str, tuple[Encoding, tuple[int, ...]]]

PIECE = 16 << 20  # bytes copied at once


def weight_types(tensors: Mapping[str, Tensor], requested: Encoding | None) -> WeightTypes:
    """Encoding and shape of every weight as it will be computed with; `requested` None keeps the file's.

    Raises UserError for an encoding that the kernels cannot multiply with.
    """
    if requested is not None:
        _check_computable(requested, "asked for")
        chosen = choose_encodings(tensors, requested)
    else:
        chosen = {name: _as_stored(name, tensor) for name, tensor in tensors.items()}
    return {name: (chosen[name], tensor.shape) for name, tensor in tensors.items()}


def _as_stored(name: str, tensor: Tensor) -> Encoding:
    # Norms are a few kilobytes.
    if len(tensor.shape) == 1:
        return Encoding.FLOAT32
    return COMPUTED_IN.get(tensor.encoding, tensor.encoding)


def _check_computable(encoding: Encoding, found: str) -> None:
    if encoding not in COMPUTABLE:
        known = ", ".join(COMPUTABLE)
        raise UserError(
            f"{found} {encoding}; expected one of {known} on the CPU: choose one with --quantization-encoding"
        )


def total_bytes(types: WeightTypes) -> int:
    """Memory of all weights in the encodings of `types`."""
    return sum(stored_bytes(shape, encoding) for encoding, shape in types.values())


def materialize(tensor: Tensor, encoding: Encoding, mapped: bool) -> Bytes:
    """The bytes of a weight that is computed with: converted where the encoding differs, else copied or `mapped`."""
    if mapped or encoding is not tensor.encoding:
        return source(tensor, encoding)
    return aligned_copy(tensor.data)


def source(tensor: Tensor, encoding: Encoding) -> Bytes:
    """The bytes of a weight in an encoding, where they lie if it is their own."""
    return writable_view(tensor.data) if encoding is tensor.encoding else converted(tensor, encoding)


def converted(tensor: Tensor, encoding: Encoding) -> Bytes:
    """The bytes of `tensor` in another encoding. Raises UserError for values that it cannot hold."""
    # Imported here: a model that is computed as stored needs no codecs.
    from weights.convert import encode_tensor

    return encode_tensor(tensor, encoding, aligned(stored_bytes(tensor.shape, encoding)))


def writable_view(data: Bytes) -> Bytes:
    """The same memory without NumPy's read-only mark: the engine copies arrays that carry it.

    Nothing writes to a weight; a write into a file's map would end the process.
    """
    memory = (ctypes.c_uint8 * data.size).from_address(data.ctypes.data)
    memory.owner = data  # type: ignore[attr-defined]  # keeps the map open as long as the view
    view: Bytes = np.ctypeslib.as_array(memory)
    return view


def aligned(size: int, alignment: int = 64) -> Bytes:
    """Memory whose address is a multiple of a cache line, so that no vector load crosses two."""
    room = np.empty(size + alignment, np.uint8)
    start = -room.ctypes.data % alignment
    return room[start : start + size]


def aligned_copy(data: Bytes) -> Bytes:
    """A copy in aligned memory, made piece by piece: no page of a mapped file stays beside its copy."""
    copy = aligned(data.size)
    for start in range(0, data.size, PIECE):
        part = data[start : start + PIECE]
        copy[start : start + PIECE] = part
        release_pages(part)
    return copy


def return_unused_memory() -> None:
    """Give freed memory back to the system, where the C library keeps it: after compiling, 340 MB of 820."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # glibc
        trim(0)
