"""Speed of our quantizers, and their error beside llama.cpp's on the same values.

    python -m benchmarks.quantize [--threads N] [--megabytes N] [--model FILE]

Without --model, the values are random (Student's t with 4 degrees of freedom, whose tails are
heavier than a normal distribution's, as those of trained weights are).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weights.convert import TARGETS, ggml_name
from weights.files.checkpoint import open_checkpoint
from weights.quantization import dequantize, quantize, to_float32
from weights.tensor import Encoding

Array = npt.NDArray[np.float32]
COLUMNS = 4096


def values(model: Path | None, megabytes: int) -> Array:
    """[rows, 4096] float32 values: the matrices of a model, or random."""
    count = megabytes * 2**18 // COLUMNS * COLUMNS
    if model is None:
        random = np.random.default_rng(0).standard_t(4, (count // COLUMNS, COLUMNS))
        return np.asarray(random * 0.02, np.float32)
    tensors = open_checkpoint(model).tensors.values()
    flat = np.concatenate([to_float32(t).reshape(-1) for t in tensors if len(t.shape) == 2])
    return flat[: min(count, flat.size // COLUMNS * COLUMNS)].reshape(-1, COLUMNS)


def best_time(array: Array, encoding: Encoding, repeats: int) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        quantize(array, encoding)
        times.append(time.perf_counter() - start)
    return min(times)


def llama_cpp_quantize(array: Array, encoding: Encoding) -> npt.NDArray[np.uint8]:
    """What llama-quantize writes without a calibration file."""
    import gguf
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    function = ctypes.CDLL(str(next(folder.glob("*ggml-base.[sd]*")))).ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [
        ctypes.c_int,
        *[ctypes.c_void_p] * 2,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    rows, columns = array.shape
    out = np.empty((rows, encoding.row_bytes(columns)), np.uint8)
    kind = int(gguf.GGMLQuantizationType[ggml_name(encoding)])
    function(kind, array.ctypes.data, out.ctypes.data, 0, rows, columns, None)
    return out


def error(array: Array, data: npt.NDArray[np.uint8], encoding: Encoding) -> float:
    """Root mean square error over the values' root mean square."""
    back = dequantize(data.reshape(-1), encoding, array.shape)
    return float(np.sqrt(np.square(back - array).mean() / np.square(array).mean()))


def measure(array: Array, encoding: Encoding) -> dict[str, Any]:
    """Speed and errors in one encoding."""
    sample = array[: max(1, 2**22 // COLUMNS)]
    ours = error(sample, quantize(sample, encoding), encoding)
    result = {
        "MB_per_s": round(array.nbytes / best_time(array, encoding, 3) / 1e6),
        "error": float(f"{ours:.4g}"),
    }
    if encoding.is_quantized:
        theirs = error(sample, llama_cpp_quantize(sample, encoding), encoding)
        result |= {"llama_cpp_error": float(f"{theirs:.4g}"), "ratio": round(ours / theirs, 4)}
    return result


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    array = values(args.model, args.megabytes)
    results = {str(encoding): measure(array, encoding) for encoding in TARGETS}
    for encoding, result in results.items():
        print(f"{encoding:10} " + "  ".join(f"{k} {v}" for k, v in result.items()))
    print(json.dumps({"threads": args.threads, "values": array.size, "results": results}))


if __name__ == "__main__":
    main()
