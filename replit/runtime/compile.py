"""A compiled model, from the file or the cache that holds it, or compiled.

The graph comes from the architecture, which imports what builds it only then: a model that was compiled before starts
without building a graph.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from replit.decoder.architecture import Architecture
from replit.decoder.config import DecoderConfig
from replit.runtime.compile_key import CompileKey, cache_path, host_processor, is_kept
from replit.runtime.compiled_cache import remove_old
from replit.runtime.compiled_file import check_key, read_compiled, write_compiled
from replit.runtime.engine import Engine
from replit.runtime.target import CPU, Target
from replit.runtime.weight_memory import WeightTypes
from weights.errors import UserError, reason

# Elements of a head that the CPU's attention takes together, and most heads that may share keys and values
# (replit/cpu/kernels/attention_cache.mojo).
HEAD_MULTIPLE = 16
MOST_HEADS = 96
# How MAX says that a disk is full, or `ulimit -f` reached.
_DISK_FULL = ("No space left", "available space in disk", "File too large")


class Reporter(Protocol):
    """Tells the user what takes time."""

    def step(self, message: str, expectation: str = "") -> AbstractContextManager[None]:
        """Shows `message` while the body runs, with what it is expected to take."""
        ...

    def note(self, message: str) -> None:
        """Says something in passing."""
        ...


@dataclass(frozen=True)
class CompileOptions:
    """Where a compiled model is looked for and kept. None and False: the user's cache."""

    load_from: Path | None = None
    save_to: Path | None = None
    sha256: str | None = None  # that the file to load must have


def compile_model(
    config: DecoderConfig,
    types: WeightTypes,
    options: CompileOptions,
    progress: Reporter,
    architecture: Architecture,
    target: Target = CPU,
) -> Any:
    """The compiled body (`max.engine.CompiledModel`), read from a file or compiled and kept in one.

    Raises UserError for a given file that does not fit, and for a place that cannot be written.
    """
    from max.engine import read

    if options.sha256 is not None and options.load_from is None:
        raise UserError(
            "--serialized-model-sha256 is given without the file whose hash it is; expected --serialized-model-path too"
        )
    if target.own_kernels and config.head_dim % HEAD_MULTIPLE:
        raise UserError(
            f"the model's heads have {config.head_dim} dimensions; expected a multiple of {HEAD_MULTIPLE} on the CPU"
        )
    if target.own_kernels and config.n_heads > MOST_HEADS * config.n_kv_heads:
        raise UserError(
            f"{config.n_heads // config.n_kv_heads} heads of the model share one head of keys and values; expected at "
            f"most {MOST_HEADS} on the CPU"
        )
    key = CompileKey.of(architecture, config, types, target)
    if options.load_from is not None:
        file = read_compiled(options.load_from, options.sha256)
        check_key(file, key)
        try:
            compiled = read(BytesIO(file.body))
        except (RuntimeError, ValueError, OSError) as error:
            raise _unreadable(file.path, error) from None
        if options.save_to is not None:
            _save(compiled, key, options.save_to)
        return compiled
    compiled = _read_cached(key)
    if compiled is None:
        compiled = _compile(config, types, progress, architecture, target)
        try:
            _save(compiled, key, cache_path(key))
            remove_old()
        except UserError as error:
            progress.note(f"not kept for the next start: {error}")
    if options.save_to is not None:
        _save(compiled, key, options.save_to)
    return compiled


def _read_cached(key: CompileKey) -> Any:
    """The compiled model in the cache, None if it is not there or no longer good."""
    from max.engine import read

    if not is_kept(key):
        return None
    try:
        path = cache_path(key)
        file = read_compiled(path)
        check_key(file, key)
        return read(BytesIO(file.body))
    except (UserError, RuntimeError, ValueError, OSError):
        return None  # it is written again


def _unreadable(path: Path, error: Exception) -> UserError:
    why = " ".join(str(error).split())[:200]
    return UserError(
        f"{path} cannot be loaded ({why}); expected a model that this version of MAX compiled: make it again with "
        "--save-to-serialized-model-path"
    )


def _compile(
    config: DecoderConfig,
    types: WeightTypes,
    progress: Reporter,
    architecture: Architecture,
    target: Target,
) -> Any:
    expected = "minutes" if target.on_gpu else "about 30 s on two cores"
    try:
        with progress.step("Building the graph", "about 5 s"):
            graph = architecture.build_graph(config, types, target)  # which compiles the kernels to a file
        with progress.step("Compiling the model, once for this machine", expected), host_code_for(target):
            return Engine.get().compile(graph)
    except Exception as error:  # MAX has several classes for it
        if any(words in str(error) for words in _DISK_FULL):
            folder = tempfile.gettempdir()
            raise UserError(
                f"the disk is full while compiling, in {folder} or the cache; expected some hundred MB free: free "
                "them, or give other places by TMPDIR and REPLIT_CACHE_DIR"
            ) from None
        raise


@contextmanager
def host_code_for(target: Target) -> Iterator[None]:
    """What compiles inside for a GPU gets host code for any machine of a kind, see `host_processor`."""
    if not target.on_gpu:
        yield
        return
    from max import driver

    before = driver.get_virtual_cpu_target()
    driver.set_virtual_cpu_target(host_processor())
    try:
        yield
    finally:
        driver.set_virtual_cpu_target(before)


def _save(compiled: Any, key: CompileKey, path: Path) -> None:
    try:
        with tempfile.TemporaryDirectory() as folder:
            body = Path(folder) / "model.mef"
            compiled.export_mef(body)
            write_compiled(path, key, body)
    except (OSError, RuntimeError, ValueError) as error:  # MAX raises any of them where the disk is full
        why = " ".join(reason(error).split())[:200]
        raise UserError(
            f"cannot write the compiled model to a temporary file: {why}; expected a writable place with some "
            "hundred MB free: give another one by TMPDIR"
        ) from None
