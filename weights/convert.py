"""Writes tensors to a GGUF file in a chosen encoding, one after the other.

Names and metadata come from the caller, who knows the architecture. The file grows under a
temporary name and takes its own when it is whole; whatever goes wrong, nothing is left behind.
"""

from __future__ import annotations

import ctypes
import mmap
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from weights.atomic_write import check_place, written_whole
from weights.errors import UserError, reason
from weights.files.mapped_file import release_pages
from weights.quantization import check_range, dequantize, feedback, quantize, to_float32
from weights.quantization.decode import Array, Bytes
from weights.quantization.feedback import ColumnInputs
from weights.quantization.recode import EXACT, NEARLY, recode
from weights.tensor import Encoding, Tensor, stored_bytes
from weights.written import WRITTEN

if TYPE_CHECKING:
    from gguf import GGUFWriter

#: What a matrix is multiplied with, by the weight's name.
Inputs = Callable[[str], ColumnInputs | None]

#: What a model can be converted to.
TARGETS = tuple(map(Encoding, WRITTEN))

#: gguf-py's names of the tensor types, where they differ from ours.
_GGML_NAMES = {"FLOAT64": "F64", "FLOAT32": "F32", "FLOAT16": "F16", "BFLOAT16": "BF16"}

#: Values expanded to float32 at once: 64 MiB.
_CHUNK = 16 * 1024 * 1024

_MADV_PAGEOUT = 21  # Linux 5.4 and later; older ones refuse it and nothing happens


def ggml_name(encoding: Encoding) -> str:
    """The name that gguf-py and file names use: F32, BF16, Q4_K and so on."""
    return _GGML_NAMES.get(encoding.name, encoding.name)


def write_gguf(
    path: Path,
    architecture: str,
    describe: Callable[[GGUFWriter], None],
    tensors: Mapping[str, Tensor],
    encodings: Mapping[str, Encoding],
    *,
    inputs: Inputs = lambda name: None,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda name: None,
) -> None:
    """Write `tensors` to `path`, each in its encoding; `describe` adds the key-values.

    `inputs` says by name what a matrix is multiplied with, so that rounding costs least there.
    `report` is called with the name of each tensor that was written. Raises UserError if the
    file exists (unless `overwrite`), for values that cannot be stored and when the disk is full.
    """
    total = sum(stored_bytes(t.shape, encodings[name]) for name, t in tensors.items())
    _check_destination(path, total, overwrite)
    try:
        with written_whole(path) as temporary:
            _write(temporary, architecture, describe, tensors, encodings, inputs, report)
    except OSError as error:
        raise _unwritable(path, error, total) from None


def _check_destination(path: Path, total: int, overwrite: bool) -> None:
    if path.suffix != ".gguf":
        raise UserError(f"{path} does not end in .gguf; expected the name of a GGUF file")
    check_place(path, overwrite)
    free = shutil.disk_usage(path.parent).free
    if free < total:
        raise UserError(f"{path} needs {total:,} bytes and {free:,} are free; make room or give another place")


def _unwritable(path: Path, error: OSError, total: int) -> UserError:
    # numpy reports a full disk without an error number, so the free space decides.
    free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
    return UserError(
        f"cannot write {path} ({reason(error)}): it needs {total:,} bytes, {free:,} are free; nothing was "
        "left behind: make room or give another place"
    )


def _write(
    path: Path,
    architecture: str,
    describe: Callable[[GGUFWriter], None],
    tensors: Mapping[str, Tensor],
    encodings: Mapping[str, Encoding],
    inputs: Inputs,
    report: Callable[[str], None],
) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, architecture)
    describe(writer)
    for name, tensor in tensors.items():
        encoding = encodings[name]
        kind = GGMLQuantizationType[ggml_name(encoding)]
        size = stored_bytes(tensor.shape, encoding)
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), size, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in tensors.items():
            writer.write_tensor_data(encode_tensor(tensor, encodings[name], None, inputs(name)))
            report(name)
    finally:
        writer.close()


def encode_tensor(
    tensor: Tensor, encoding: Encoding, out: Bytes | None = None, inputs: ColumnInputs | None = None
) -> Bytes:
    """The bytes of `tensor` in `encoding`, 1-D, in `out` if given; unchanged if it is stored so already.

    Raises UserError, with the tensor's name, for NaN, infinity and values beyond the encoding.
    """
    columns = tensor.shape[-1]
    rows = prod(tensor.shape[:-1])
    result = np.empty(stored_bytes(tensor.shape, encoding), np.uint8) if out is None else out
    if inputs is not None and inputs.products and _rounds(tensor, encoding) and encoding in feedback.ENCODINGS:
        result[:] = _with_feedback(tensor, encoding, inputs.products)
        return result
    importance = None if inputs is None else inputs.squares
    encoded_rows = result.reshape(rows, encoding.row_bytes(columns))
    stored = tensor.data.reshape(rows, tensor.row_bytes)
    step = max(1, _CHUNK // columns)
    for start in range(0, rows, step):
        part = stored[start : start + step]
        encoded_rows[start : start + step] = _encoded(part, tensor, encoding, importance)
        _release(part)
    return result


def _rounds(tensor: Tensor, encoding: Encoding) -> bool:
    """Whether `tensor` is rounded to `encoding`, and not copied."""
    return tensor.encoding is not encoding and (tensor.encoding, encoding) not in {**EXACT, **NEARLY}


def _with_feedback(tensor: Tensor, encoding: Encoding, products: Sequence[Array]) -> Bytes:
    """The whole matrix at once: its columns depend on each other."""
    values = to_float32(tensor)
    try:
        check_range(values, encoding)
    except UserError as error:
        raise UserError(f"tensor {tensor.name!r} {error}") from None
    _release(tensor.data)
    return feedback.encode_with_feedback(values, encoding, products).reshape(-1)


def _encoded(part: Bytes, tensor: Tensor, encoding: Encoding, importance: Array | None) -> Bytes:
    """Some rows of `tensor`, [rows, bytes], in `encoding`."""
    # Rounding what is stored in blocks already would only lose by it.
    copied = part if tensor.encoding is encoding else recode(part, tensor.encoding, encoding)
    values = dequantize(part.reshape(-1), tensor.encoding, (len(part), tensor.shape[-1]))
    try:
        # What is copied is checked all the same.
        encoded = quantize(values, encoding if copied is None else Encoding.FLOAT32, importance)
    except UserError as error:
        raise UserError(f"tensor {tensor.name!r} {error}") from None
    return encoded if copied is None else copied.reshape(len(part), -1)


def _release(data: Bytes) -> None:
    """Let the system take back the pages of a mapped file, or they add up to the whole source."""
    if release_pages(data) or sys.platform != "linux":
        return
    # PyTorch's maps: this changes where the bytes are, never what they are, whatever memory `data` is in.
    start = -(-data.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = (data.ctypes.data + data.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if stop > start:
        advise = ctypes.CDLL(None).madvise
        advise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _MADV_PAGEOUT)
