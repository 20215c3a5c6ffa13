"""Measures prefill and decode speed of a loaded pipeline, as llama-bench does for llama.cpp, and what guesses bring."""

from __future__ import annotations

import resource
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from pipelines.engine.loop import run as run_sequences
from pipelines.engine.sampling import SamplingParams
from pipelines.engine.sequence import ALONE, SequenceRequest
from pipelines.engine.sequence import Sequence as TokenSequence
from pipelines.pipeline import Pipeline
from replit.runtime.kv_cache import PagedKVCache

#: Tokens of Python's own library that the guessed text goes on from: guesses are worth nothing on random ids.
TEXT_TOKENS = 200


@dataclass(frozen=True)
class Measurement:
    """One line of the table: medians over the repeats."""

    # pp512: prefill of 512 tokens; tg64: 64 tokens generated; @d1000: after 1000 others. text64: the same of a real
    # text, greedy, and text64+draft with guesses
    test: str
    batch: int
    tokens_per_second: float
    slowest: float  # tokens per second of the slowest repeat
    gigabytes_per_second: float | None  # weights and cache that a decode step reads
    bandwidth_share: float | None
    tokens_per_read: float | None = None  # of the weights, where tokens are guessed

    def as_dict(self) -> dict[str, object]:
        """For JSON and CSV."""
        return asdict(self)


def run(
    pipeline: Pipeline,
    *,
    prompt_sizes: Sequence[int],
    generated: Sequence[int],
    depths: Sequence[int],
    batch_sizes: Sequence[int],
    repeats: int,
    bandwidth: float | None,
) -> Iterator[Measurement]:
    """Measures everything that was asked for; a first run of each is not counted.

    Needs a pipeline whose `max_length` and slots hold the largest depth plus tokens and batch.
    """
    for size in prompt_sizes:
        ids = _random_ids(pipeline, size)
        seconds = _repeat(repeats, lambda ids=ids: pipeline.model.prefill(0, ids))  # type: ignore[misc]
        yield Measurement(f"pp{size}", 1, size / median(seconds), size / max(seconds), None, None)
    for depth in depths:
        for batch in batch_sizes:
            for count in generated:
                yield _decode(pipeline, count, depth, batch, repeats, bandwidth)
    if pipeline.drafter is not None:
        for count in generated:
            if count > 1:
                yield from _guessed(pipeline, count, repeats)


def _decode(
    pipeline: Pipeline, count: int, depth: int, batch: int, repeats: int, bandwidth: float | None
) -> Measurement:
    model = pipeline.model
    prompt = _random_ids(pipeline, max(depth, 1))
    for slot in range(batch):
        model.prefill(slot, prompt)
    slots, ids = list(range(batch)), prompt[:1] * batch

    def generate() -> None:
        model.cache.lengths[:batch] = len(prompt)
        for _ in range(count):
            model.decode(slots, ids)

    seconds = _repeat(repeats, generate)
    rate = batch * count / median(seconds)
    cache = batch * (len(prompt) + count / 2) * PagedKVCache.bytes_per_token(pipeline.config, model.cache_encoding)
    read = (pipeline.weight_bytes + cache) * count / median(seconds)
    name = f"tg{count}" + (f"@d{depth}" if depth else "")
    share = read / bandwidth if bandwidth else None
    return Measurement(name, batch, rate, batch * count / max(seconds), read / 1e9, share)


def _guessed(pipeline: Pipeline, count: int, repeats: int) -> Iterator[Measurement]:
    """The same text without guesses and with, in turns, from its first token on."""
    source = Path(textwrap.__file__).read_text(encoding="utf-8")
    prompt = pipeline.tokenizer.encode(source)[:TEXT_TOKENS]
    params = SamplingParams(max_new_tokens=count, top_k=1, ignore_eos=True)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    passes = 0
    for turn in range(repeats + 1):
        for guesses in (False, True):
            # Alone: what a run wrote may not be guessed by the next.
            request = SequenceRequest(f"bench-{turn}", prompt, params, (0,), cache_salt=f"{ALONE}{turn}")
            sequence = TokenSequence(request, pipeline.tokenizer, pipeline.max_length)
            steps = run_sequences(pipeline.slots, [sequence], pipeline.drafter if guesses else None)
            next(steps)
            start = time.perf_counter()
            passes = sum(1 for _ in steps)
            seconds[guesses].append(time.perf_counter() - start)
    for guesses, name in ((False, f"text{count}"), (True, f"text{count}+draft")):
        found = seconds[guesses][1:]
        a_read = (count - 1) / passes if guesses else 1.0
        yield Measurement(name, 1, (count - 1) / median(found), (count - 1) / max(found), None, None, a_read)


def _repeat(repeats: int, action: Callable[[], object]) -> list[float]:
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def _random_ids(pipeline: Pipeline, count: int) -> list[int]:
    ids: list[int] = np.random.default_rng(0).integers(0, pipeline.config.vocab_size, count).tolist()
    return ids


def anonymous_memory() -> int:
    """Bytes of memory that this process holds now, mapped files left out (where the system tells)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of macOS, in bytes
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) * 1024
