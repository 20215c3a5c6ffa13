"""How long sequences may be, and how many run at once, where the command line does not say.

The model's own limit where memory allows, since 512 tokens are one screen of code; where it does not, sequences at
once give way before length does.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

from pipelines.registry import ModelFiles, parse_encoding
from pipelines.server.options import DEFAULT_BATCH, ServeOptions
from replit.runtime.free_memory import PAGE_SIZE, cache_bytes, free_memory
from replit.runtime.target import CPU_CACHES
from replit.runtime.weight_memory import total_bytes, weight_types
from weights.tensor import Encoding

# Of what is free beside the weights, the part for keys and values; the rest is other programs', and the passes'.
SHARE = 0.5
# Beside the batch: a sequence that the pipeline keeps for itself, and the prefixes of earlier requests.
PREFIX_CACHE_BYTES = 256 << 20
# Python, MAX and the tokenizer.
PROCESS_BYTES = 256 << 20


def with_room(options: ServeOptions, files: ModelFiles, free: int | None = None) -> ServeOptions:
    """The options with a length and a number of sequences; `free` is the memory, None: as the system tells."""
    if options.max_length and options.max_batch_size:
        return options
    length = options.max_length or files.config.max_seq_len
    most = options.max_batch_size or DEFAULT_BATCH
    room = _room(options, files, free)
    if room is None:
        return replace(options, max_length=length, max_batch_size=most)
    encoding = cache_encoding(options)
    if not options.max_batch_size:
        most = max(min(most, room // cache_bytes(files.config, 1, length, encoding) - 1), 1)
    if not options.max_length:
        pages = room // cache_bytes(files.config, most + 1, PAGE_SIZE, encoding)
        length = min(length, max(pages, 1) * PAGE_SIZE)
    return replace(options, max_length=length, max_batch_size=most)


def model_bytes(options: ServeOptions, files: ModelFiles) -> int:
    """Memory of a process with a copy of the model and all its sequences."""
    cache = cache_bytes(files.config, options.max_batch_size + 1, options.max_length, cache_encoding(options))
    return PROCESS_BYTES + _weight_bytes(options, files) + cache


def _weight_bytes(options: ServeOptions, files: ModelFiles) -> int:
    encoding = parse_encoding(options.quantization_encoding)
    return total_bytes(weight_types(files.tensors, encoding if options.device == "cpu" else Encoding.BFLOAT16))


def _room(options: ServeOptions, files: ModelFiles, free: int | None) -> int | None:
    """Bytes for keys and values; None where nobody knows."""
    on_cpu = options.device == "cpu"
    if free is None:
        free = free_memory() if on_cpu else free_gpu_memory(options.device)
    if free is None:
        return None
    return max(int((free - _weight_bytes(options, files)) * SHARE) - PREFIX_CACHE_BYTES, 0)


def cache_encoding(options: ServeOptions) -> Encoding:
    """Of keys and values; one that is not known is refused where the model is loaded."""
    if options.device != "cpu":
        return Encoding.BFLOAT16
    return Encoding(options.kv_cache_encoding) if options.kv_cache_encoding in CPU_CACHES else Encoding.FLOAT32


def free_gpu_memory(device: str) -> int | None:
    """Free bytes of a GPU such as gpu:0, from its driver's own tool: this process must not open the device."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    number = device.partition(":")[2] or "0"
    query = [tool, "--query-gpu=memory.free", "--format=csv,noheader,nounits", f"--id={number}"]
    try:
        found = subprocess.run(query, capture_output=True, timeout=20, check=True).stdout
        return int(found.split()[0]) << 20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
