"""A compiled model in memory and the cache of its batch: the only place that holds an InferenceSession.

What compiles comes from replit/graph.py, imported only when something is compiled: a model that was compiled before
starts without building a graph.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from replit.architecture import REPLIT, Architecture, DecoderConfig
from replit.runtime.compiled_file import CompileKey, cache_path, check_key, read_compiled, write_compiled
from replit.runtime.kv_cache import PagedKVCache, pages_for
from replit.runtime.log_thread import rarely_polling
from replit.runtime.passes import CpuPasses, run_slots
from replit.runtime.target import CPU, Target
from replit.runtime.weight_memory import WeightTypes, materialize, return_unused_memory
from weights.errors import UserError
from weights.tensor import Tensor

Floats = npt.NDArray[np.float32]

# Prompt tokens of one call: more make no product faster, and the activations of 512 rows stay small.
PREFILL_TOKENS = 512


class Progress(Protocol):
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


@contextmanager
def limited_to(threads: int | None) -> Iterator[None]:
    """Lets the engine that starts inside see so many cores, of which each gets a thread.

    MAX's own `num_threads` aborts the process: its session has started the CPU's threads by then.
    Raises UserError where there are fewer cores, or where the system cannot limit them.
    """
    if threads is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UserError(f"--threads is {threads}; expected no --threads on this system, which cannot limit cores")
    cores = os.sched_getaffinity(0)
    if threads > len(cores):
        raise UserError(f"--threads is {threads}; expected at most {len(cores)}, the cores that this process may use")
    os.sched_setaffinity(0, sorted(cores)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


class Engine:
    """MAX's session. One a process: the engine's threads are started once."""

    _current: Engine | None = None

    def __init__(self, threads: int | None, device: Any = None) -> None:
        from max.engine import InferenceSession

        self.threads = threads
        self.device = device
        with limited_to(threads):
            self.session = InferenceSession([] if device is None else [device])

    @classmethod
    def get(cls, threads: int | None = None, device: Any = None) -> Engine:
        """The engine of this process, started at the first call; `device` is a `max.driver.Accelerator`.

        Raises UserError when it already runs with another number of threads or another GPU.
        """
        if cls._current is None:
            cls._current = cls(threads, device)
        elif device is not None and device != cls._current.device:
            found = "the CPU" if cls._current.device is None else f"GPU {cls._current.device.id}"
            raise UserError(f"the engine already runs on {found}; expected GPU {device.id}: start another process")
        elif threads is not None and threads != cls._current.threads:
            raise UserError(
                f"the engine already runs with {cls._current.threads or 'all'} threads; "
                f"expected {threads}: start another process"
            )
        return cls._current

    def compile(self, graph: Any) -> Any:
        """The compiled graph; what compiling leaves of memory goes back to the system."""
        compiled = self.session.compile(graph)
        return_unused_memory()
        return compiled

    @classmethod
    def adopt(cls, session: Any) -> None:
        """Makes a session that MAX Serve has started the one of this process."""
        engine = cls.__new__(cls)
        engine.threads, engine.device, engine.session = None, None, session
        cls._current = engine


def compile_model(
    config: DecoderConfig,
    types: WeightTypes,
    options: CompileOptions,
    progress: Progress,
    architecture: Architecture = REPLIT,
    target: Target = CPU,
) -> Any:
    """The compiled body (`max.engine.CompiledModel`), read from a file or compiled and kept in one.

    Raises UserError for a given file that does not fit, and for a place that cannot be written.
    """
    from max.engine import read

    key = CompileKey.of(config, types, target)
    if options.load_from is not None:
        file = read_compiled(options.load_from)
        check_key(file, key)
        compiled = read(BytesIO(file.body))
        if options.save_to is not None:
            _save(compiled, key, options.save_to)
        return compiled
    kept = cache_path(key)
    compiled = _read_cached(kept, key)
    if compiled is None:
        compiled = _compile(config, types, progress, architecture, target)
        try:
            _save(compiled, key, kept)
        except UserError as error:
            progress.note(f"not kept for the next start: {error}")
    if options.save_to is not None:
        _save(compiled, key, options.save_to)
    return compiled


def _read_cached(path: Path, key: CompileKey) -> Any:
    """The compiled model in the cache, None if it is not there or no longer good."""
    from max.engine import read

    if not path.exists():
        return None
    try:
        file = read_compiled(path)
        check_key(file, key)
    except UserError:
        return None  # it is written again
    return read(BytesIO(file.body))


def _compile(
    config: DecoderConfig,
    types: WeightTypes,
    progress: Progress,
    architecture: Architecture,
    target: Target,
) -> Any:
    with progress.step("Building the graph", "about 5 s"):
        graph = architecture.build_graph(config, types, target)
    expected = "minutes" if target.on_gpu else "about 30 s on two cores"
    with progress.step("Compiling the model, once for this machine", expected):
        return Engine.get().compile(graph)


def _save(compiled: Any, key: CompileKey, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "model.mef"
        compiled.export_mef(body)
        write_compiled(path, key, body)


class ReplitModel:
    """Logits of a batch of sequences, each in a slot of the cache."""

    def __init__(self, config: DecoderConfig, model: Any, slots: int, max_length: int) -> None:
        self.config = config
        self.slots = slots
        self.max_length = max_length
        self.cache = PagedKVCache(config, slots, max_length)
        self._model = model
        from max.driver import Buffer

        self._passes = self.passes_over(Buffer.from_numpy(self.cache.blocks))

    def passes_over(self, blocks: Any) -> CpuPasses:
        """Passes over the pages of another cache (MAX Serve's), for sequences of up to `max_length` positions."""
        return CpuPasses(self._model, blocks, pages_for(self.max_length))

    def truncate(self, slot: int, length: int) -> None:
        """Keeps the first `length` positions of a slot."""
        self.cache.lengths[slot] = length

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Gives `target` the first `length` positions of `source`, and no others."""
        self.cache.copy_prefix(source, target, length)

    def extend(self, slots: Sequence[int], ids: Sequence[Sequence[int]], rows: Sequence[int]) -> Floats:
        """Appends `ids[i]` to `slots[i]`, in one pass; logits `[len(rows), vocab]` after those `rows` of all."""
        logits: Floats = run_slots(self._passes, self.cache, slots, ids, rows)[0].to_numpy()
        return logits

    def prefill(self, slot: int, ids: Sequence[int]) -> Floats:
        """Starts a sequence in `slot`; the logits `[vocab]` after its last id."""
        self.truncate(slot, 0)
        for start in range(0, len(ids), PREFILL_TOKENS):
            part = ids[start : start + PREFILL_TOKENS]
            logits = self.extend([slot], [part], [len(part) - 1])
        last: Floats = logits[0]
        return last

    def decode(self, slots: Sequence[int], ids: Sequence[int]) -> Floats:
        """Appends one id to each sequence; the logits `[len(slots), vocab]` after them."""
        return self.extend(slots, [[i] for i in ids], range(len(slots)))


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


class Executable:
    """The bound graph on the CPU."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._started = False

    def execute(self, *inputs: Any) -> list[Any]:
        """The graph's outputs, as `max.engine.Model.execute` gives them."""
        if not self._started:
            self._started = True
            with rarely_polling():
                return list(self._model.execute(*inputs))
        outputs: list[Any] = self._model.execute(*inputs)
        return outputs
