"""Choosing the next token from logits: pure functions, the random generator passed in.

The order of the filters is llama.cpp's and vLLM's: repetition penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replit.gpu.top_logits import MOST, TopLogits
from weights.errors import UserError

COMPLETIONS = ("full", "line", "block")

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens and when to stop.

    `top_k` 0 keeps every token, 1 is greedy like `temperature` 0; `max_new_tokens` -1 generates until the length
    limit; `seed` None draws one. `stop` strings end the text before themselves; `completion` is full, line or block
    and ends it there (pipelines/text/completion_mode.py); `strip` leaves out whitespace at the end.
    """

    max_new_tokens: int = -1
    top_k: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    completion: str = "full"
    strip: bool = False

    def __post_init__(self) -> None:
        _check_integer("max-new-tokens", self.max_new_tokens, -1)
        _check_integer("top-k", self.top_k, 1)
        _check_number("temperature", self.temperature, 0.0, math.inf)
        _check_number("top-p", self.top_p, 0.0, 1.0, above=True)
        _check_number("min-p", self.min_p, 0.0, 1.0)
        _check_number("repetition-penalty", self.repetition_penalty, 0.0, math.inf, above=True)
        if self.seed is not None:
            _check_integer("seed", self.seed, 0)
        if any(not text for text in self.stop):
            raise UserError("--stop is an empty string; expected text to stop at: leave it out")
        if self.completion not in COMPLETIONS:
            known = ", ".join(COMPLETIONS)
            raise UserError(f"--completion is {self.completion!r}; expected one of {known}")

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.top_k == 1 or self.temperature == 0


def _check_integer(name: str, value: int, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise UserError(f"--{name} is {value}; expected a whole number from {low} up")


def _check_number(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    inside = number and (low < value if above else low <= value) and value <= high
    if not inside or math.isinf(value):
        bound = f"above {low:g}" if above else f"from {low:g}"
        limit = "" if math.isinf(high) else f" to {high:g}"
        raise UserError(f"--{name} is {value}; expected a number {bound}{limit}")


def sample(
    logits: Floats | TopLogits, params: SamplingParams, previous: Sequence[int], generator: np.random.Generator
) -> int:
    """The next token id from `logits` `[vocab]`, or from the `logits_needed` highest of them.

    `previous` are the ids so far, prompt included.
    """
    if isinstance(logits, TopLogits):
        if params.greedy:
            return int(logits.ids[0])
        ids, probabilities = filtered(logits.ids[: params.top_k], logits.logits[: params.top_k], params)
        return _draw(ids, probabilities, generator)
    if params.repetition_penalty != 1.0:
        logits = penalize_repetition(logits, previous, params.repetition_penalty)
    if params.greedy:
        return int(np.argmax(logits))
    return _draw(*candidates(logits, params), generator)


def logits_needed(params: SamplingParams) -> int:
    """How many of the highest logits decide the next token; 0: all of them, or more than a GPU hands back."""
    if params.repetition_penalty != 1.0:
        return 0
    if params.greedy:
        return 1
    return params.top_k if params.top_k <= MOST else 0


def _draw(ids: Ids, probabilities: Floats, generator: np.random.Generator) -> int:
    # One uniform number a token, so that a seed gives the same text whatever the vocabulary's order.
    cumulative = np.cumsum(probabilities, dtype=np.float64)
    chosen = np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right")
    return int(ids[min(int(chosen), len(ids) - 1)])


def penalize_repetition(logits: Floats, previous: Sequence[int], penalty: float) -> Floats:
    """Logits with those of `previous` ids divided by `penalty` (multiplied where negative), as in CTRL."""
    logits = logits.copy()
    seen = np.unique(np.asarray(previous, np.int64))
    scores = logits[seen]
    logits[seen] = np.where(scores > 0, scores / penalty, scores * penalty)
    return logits


def candidates(logits: Floats, params: SamplingParams) -> tuple[Ids, Floats]:
    """The ids that may be drawn, most probable first, and their probabilities (not renormalized)."""
    ids = top_k_ids(logits, params.top_k)
    return filtered(ids, logits[ids], params)


def filtered(ids: Ids, logits: Floats, params: SamplingParams) -> tuple[Ids, Floats]:
    """Which of `ids`, most probable first, pass top-p and min-p, and their probabilities (not renormalized)."""
    probabilities = softmax(logits / np.float32(params.temperature))
    keep = len(ids)
    if params.top_p < 1:
        # A token stays while those before it have less than top_p together, so the first always does.
        keep = int(np.searchsorted(np.cumsum(probabilities), params.top_p)) + 1
    if params.min_p > 0:
        keep = min(keep, int(np.sum(probabilities >= params.min_p * probabilities[0])))
    return ids[:keep], probabilities[:keep]


def top_k_ids(logits: Floats, k: int) -> Ids:
    """Ids of the `k` highest logits (0: all), highest first, ties by id."""
    if 0 < k < len(logits):
        threshold = np.partition(logits, -k)[-k]
        ids = np.flatnonzero(logits >= threshold)
    else:
        ids = np.arange(len(logits))
    return ids[np.argsort(-logits[ids], kind="stable")][: k or None]


def softmax(scores: Floats) -> Floats:
    """Probabilities of `scores`, computed against their maximum."""
    weights = np.exp(scores - scores.max())
    result: Floats = weights / weights.sum()
    return result


def log_softmax(logits: Floats) -> Floats:
    """Logarithms of the probabilities, along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
