"""Choosing the next token from logits: pure functions, the random generator passed in.

A chain of filters, whose order is data: vLLM's on OpenAI's routes and the command line, llama.cpp's on llama.cpp's.
Between filters the candidates stand most probable first, so that each of them keeps a beginning.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral

import numpy as np
import numpy.typing as npt

from replit.gpu.top_logits import MOST, TopLogits
from weights.errors import UserError

COMPLETIONS = ("full", "line", "block")
# A temperature below this is greedy, as in vLLM: dividing by it would leave nothing but the most probable token.
GREEDY_TEMPERATURE = 1e-5
# Every filter's name, in either order; what an order leaves out is off. Biases come before all of them.
VLLM_ORDER = ("penalties", "temperature", "min_p", "top_k", "top_p")
LLAMA_ORDER = ("penalties", "top_k", "top_p", "min_p", "temperature")

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
IdsSoFar = tuple[Sequence[int], Sequence[int]]  # of the prompt, and generated ones

_LARGEST = float(np.finfo(np.float32).max)
_NEAR = np.float32(10)


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens and when to stop.

    `top_k` 0 and -1 keep every token, 1 is greedy like `temperature` 0; `max_new_tokens` -1 generates until the length
    limit; `seed` None draws one. Penalties: `repetition_penalty` counts the prompt and what was generated,
    `presence_penalty` and `frequency_penalty` what was generated, or with `penalize_prompt` the prompt too; all of them
    the last `penalty_last_n` ids (-1: all). `logit_bias` are pairs of id and what is added to its logit, -inf bans it.
    `order` names the filters that are used, first to last. `stop` strings end the text before themselves; `completion`
    is full, line or block and ends it there (text/completion_mode.py); `strip` leaves out whitespace at the end.
    """

    max_new_tokens: int = -1
    top_k: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = -1
    penalize_prompt: bool = False
    logit_bias: tuple[tuple[int, float], ...] = ()
    order: tuple[str, ...] = VLLM_ORDER
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    completion: str = "full"
    strip: bool = False

    def __post_init__(self) -> None:
        check_integer("max-new-tokens", self.max_new_tokens, -1)
        check_integer("top-k", self.top_k, -1)
        _check_number("temperature", self.temperature, 0.0, math.inf)
        _check_number("top-p", self.top_p, 0.0, 1.0, above=True)
        _check_number("min-p", self.min_p, 0.0, 1.0)
        _check_number("repetition-penalty", self.repetition_penalty, 0.0, math.inf, above=True)
        _check_number("presence-penalty", self.presence_penalty, -math.inf, math.inf)
        _check_number("frequency-penalty", self.frequency_penalty, -math.inf, math.inf)
        check_integer("penalty-last-n", self.penalty_last_n, -1)
        for token, bias in self.logit_bias:
            check_integer("logit-bias", token, 0)
            if bias != -math.inf:
                _check_number("logit-bias", bias, -math.inf, math.inf)
        if not isinstance(self.order, (list, tuple)):
            known = ", ".join(VLLM_ORDER)
            raise UserError(
                f"the order of the filters is {reprlib.repr(self.order)}; expected a list of some of {known}"
            )
        for name in ("penalize_prompt", "ignore_eos", "strip"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                told = name.replace("_", "-")
                raise UserError(f"--{told} is {reprlib.repr(getattr(self, name))}; expected True or False")
        if unknown := [name for name in self.order if name not in VLLM_ORDER]:
            raise UserError(f"the filter {unknown[0]!r} is unknown; expected some of {', '.join(VLLM_ORDER)}")
        if self.seed is not None:
            check_integer("seed", self.seed, 0)
        if any(not text for text in self.stop):
            raise UserError("--stop is an empty string; expected text to stop at: leave it out")
        if any("\ud800" <= character <= "\udfff" for text in self.stop for character in text):
            raise UserError("--stop holds bytes that are no UTF-8, or half a surrogate pair; expected text")
        if self.completion not in COMPLETIONS:
            known = ", ".join(COMPLETIONS)
            raise UserError(f"--completion is {self.completion!r}; expected one of {known}")

    @cached_property
    def greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        if "top_k" in self.order and self.top_k == 1:
            return True
        return "temperature" in self.order and self.temperature < GREEDY_TEMPERATURE

    @cached_property
    def penalizes(self) -> bool:
        """Whether the ids so far change the logits."""
        if "penalties" not in self.order or self.penalty_last_n == 0:
            return False
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


class NothingToDraw(ValueError):
    """Logits from which no token can be chosen: they are not numbers, or every token is banned."""


def sample(
    logits: Floats | TopLogits,
    params: SamplingParams,
    prompt: Sequence[int],
    generated: Sequence[int],
    generator: np.random.Generator,
    allowed: Ids | None = None,
) -> int:
    """The next token id from `logits` `[vocab]`, or from the `logits_needed` highest of them.

    `prompt` and `generated` are the ids so far, which only penalties look at; with `allowed` it is one of those. Raises
    NothingToDraw for logits of which the highest is not a finite number.
    """
    if isinstance(logits, TopLogits):
        check_finite(logits.logits[0])
        if params.greedy:
            return int(logits.ids[0])
        return _draw(Candidates(logits.ids, logits.logits), params, generator.random())
    best = int(logits.argmax())  # one that is no number, if there is one
    check_finite(logits[best])
    if params.logit_bias:
        logits = biased(logits, params.logit_bias)
    late = params.penalizes and params.order.index("penalties") > 0  # then they change what other filters have left
    if params.penalizes and not late:
        logits = penalized(logits, params, prompt, generated)
    if allowed is not None:
        logits = only(logits, allowed)
    if params.greedy and not late:
        changed = params.logit_bias or params.penalizes or allowed is not None
        return int(logits.argmax()) if changed else best
    chance = generator.random()  # one a token, so that a seed gives the same text whatever the vocabulary's order
    for most in (*HEADS, len(logits)):
        with suppress(Undecided):
            return _draw(Candidates.highest(logits, most), params, chance, (prompt, generated))
    raise AssertionError("all of the vocabulary decides")


def only(logits: Floats, allowed: Ids) -> Floats:
    """Logits with every id banned but the `allowed` ones. Raises NothingToDraw if none is left."""
    kept = np.full_like(logits, -np.inf)
    kept[allowed] = logits[allowed]
    if not len(allowed) or not np.isfinite(kept.max()):
        raise NothingToDraw("every token that spells the end of the prompt again is banned")
    return kept


def check_finite(highest: np.floating) -> None:
    """Raises NothingToDraw unless the highest of some logits is a number; one NaN among them makes it NaN."""
    if not math.isfinite(highest):
        raise NothingToDraw(
            f"the highest logit is {highest}; expected a finite number: the model's weights are damaged or too large"
        )


def logits_needed(params: SamplingParams) -> int:
    """How many of the highest logits decide the next token; 0: all of them, or more than a GPU hands back."""
    if params.penalizes or params.logit_bias:
        return 0
    if params.greedy:
        return 1
    head = _head(params)
    return head if head <= MOST else 0


def biased(logits: Floats, biases: Sequence[tuple[int, float]]) -> Floats:
    """Logits with each bias added. Raises NothingToDraw if none is left."""
    logits = logits.copy()
    for token, bias in biases:
        if token < len(logits):
            logits[token] = max(min(float(logits[token]) + bias, _LARGEST), -_LARGEST) if bias > -math.inf else -np.inf
    if not np.isfinite(logits.max()):
        raise NothingToDraw("logit_bias bans every token; expected one that may be chosen")
    return logits


def penalized(logits: Floats, params: SamplingParams, prompt: Sequence[int], generated: Sequence[int]) -> Floats:
    """Logits after the penalties: CTRL's for repetition, then OpenAI's for frequency and presence.

    In float64 and kept in float32's range, since a penalty near zero would divide into infinity.
    """
    window = slice(-params.penalty_last_n if params.penalty_last_n > 0 else None, None)
    everything = [*prompt, *generated][window]
    before = 0 if params.penalize_prompt else max(len(everything) - len(generated), 0)  # what is not counted
    ids, places = np.unique(np.asarray(everything, np.int64), return_inverse=True)
    counts = np.bincount(places[before:], minlength=len(ids))
    scores = logits[ids].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # what is banned stays so
        divided = scores / params.repetition_penalty
        repeated = np.where(scores > 0, divided, scores * params.repetition_penalty)
        changed = np.clip(repeated, -_LARGEST, _LARGEST)  # less infinity, infinity would be no number
        changed -= counts * params.frequency_penalty + (counts > 0) * params.presence_penalty
    result: Floats = logits.copy()
    result[ids] = np.where(np.isneginf(scores), scores, np.clip(changed, -_LARGEST, _LARGEST))
    return result


class Undecided(Exception):
    """More candidates have to be looked at before it is known which of them a filter keeps, or which is drawn."""


class Candidates:
    """Ids that may be drawn, most probable first, and their scores: logits less the highest, scaled.

    A vocabulary takes longer to sort than a small model to run, so that only some of the highest are `ids`; what the
    others weigh together comes from `everything`, and a filter that would keep one of those raises Undecided.
    """

    def __init__(self, ids: Ids, logits: Floats, everything: Floats | None = None) -> None:
        """`logits` `[n]` are those of `ids`; `everything` the vocabulary's, None where `ids` are all there are."""
        self.ids = ids
        self._everything, self._highest, self._temperature = everything, logits[0], 1.0
        with np.errstate(over="ignore"):
            self.scores: Floats = logits - logits[0]  # before any division: what is far below becomes -inf and not NaN
        banned = int(np.searchsorted(-self.scores, np.inf))  # they stand last
        if banned < len(ids):
            self._keep(banned)

    @property
    def whole(self) -> bool:
        """Whether no other id may be drawn."""
        return self._everything is None

    @classmethod
    def highest(cls, logits: Floats, most: int) -> Candidates:
        """The `most` highest of a vocabulary's `logits`."""
        ids = top_k_ids(logits, most)
        return cls(ids, logits[ids], logits if most < len(logits) else None)

    def filter(self, params: SamplingParams, ids: IdsSoFar = ((), ())) -> None:
        """Applies the filters in their order; penalties that come first were applied to all of the vocabulary."""
        for place, name in enumerate(params.order):
            if name != "penalties":
                _FILTERS[name](self, params)
            elif place > 0 and params.penalizes:
                self.penalties(params, ids)

    def penalties(self, params: SamplingParams, ids: IdsSoFar) -> None:
        """Penalizes what is left, for `ids` of the prompt and generated ones, and puts it in order again."""
        if not self.whole:
            raise Undecided
        logits = np.full(1 + max([int(self.ids.max()), *ids[0], *ids[1]]), -np.inf, np.float32)
        highest = max(min(float(self._highest) / self._temperature, _LARGEST), -_LARGEST)
        with np.errstate(over="ignore"):
            logits[self.ids] = self.scores + np.float32(highest)
            changed = penalized(logits, params, *ids)[self.ids]
            order = np.argsort(-changed, kind="stable")
            self.ids, self._highest, self._temperature = self.ids[order], changed[order[0]], 1.0
            self.scores = changed[order] - self._highest

    def temperature(self, params: SamplingParams) -> None:
        """Divides the scores; near zero it keeps the highest."""
        if params.temperature < GREEDY_TEMPERATURE:
            self._keep(1)
            return
        divisor = min(params.temperature, _LARGEST)
        self._temperature = min(self._temperature * divisor, _LARGEST)
        with np.errstate(over="ignore"):
            self.scores = self.scores / np.float32(divisor)

    def top_k(self, params: SamplingParams) -> None:
        """Keeps the highest."""
        if params.top_k > 0 and (self._everything is None or params.top_k < len(self._everything)):
            self._keep(params.top_k)

    def top_p(self, params: SamplingParams) -> None:
        """Keeps the fewest that are as probable together; a token stays while those before it are less."""
        if params.top_p < 1:
            reached, whole = self.weights()
            self._keep(int(np.searchsorted(reached, params.top_p * whole)) + 1)

    def min_p(self, params: SamplingParams) -> None:
        """Keeps those that are so probable beside the highest, which itself always stays."""
        if params.min_p > 0:
            self._keep(max(int(np.sum(np.exp(self.scores) >= params.min_p)), 1))

    def weights(self) -> tuple[npt.NDArray[np.float64], float]:
        """The sums of their probabilities to each of `ids`, not normalized, and that of all candidates."""
        reached = np.cumsum(np.exp(self.scores), dtype=np.float64)
        if self._everything is None:
            return reached, float(reached[-1])
        with np.errstate(over="ignore"):
            scores = (self._everything - self._highest) / np.float32(self._temperature)
        return reached, float(np.exp(scores).sum(dtype=np.float64))

    def _keep(self, count: int) -> None:
        """Keeps the first `count` of all candidates."""
        if count < len(self.ids):
            self.ids, self.scores, self._everything = self.ids[:count], self.scores[:count], None
        elif self._everything is not None:
            raise Undecided


# How many of the highest logits are looked at first, then second: most tokens are drawn from few.
HEADS = (128, 4096)
_FILTERS: dict[str, Callable[[Candidates, SamplingParams], None]] = {
    "temperature": Candidates.temperature, "top_k": Candidates.top_k, "top_p": Candidates.top_p,
    "min_p": Candidates.min_p,
}  # fmt: skip


def _draw(candidates: Candidates, params: SamplingParams, chance: float, ids: IdsSoFar = ((), ())) -> int:
    """The candidate at `chance`, from 0 to below 1, of all their probabilities. Raises Undecided."""
    candidates.filter(params, ids)
    reached, whole = candidates.weights()
    chosen = int(np.searchsorted(reached, chance * whole, side="right"))
    if chosen < len(reached):
        return int(candidates.ids[chosen])
    if not candidates.whole:
        raise Undecided
    # The last one with a probability, should rounding go past it.
    return int(candidates.ids[np.searchsorted(reached, reached[-1])])


def _head(params: SamplingParams) -> int:
    """How many of the highest logits the filters can keep; 0: all.

    Top-k may be taken first where nothing before it looks at more than order and the highest logit.
    """
    if "top_k" not in params.order or params.top_k <= 0:
        return 0
    before = params.order[: params.order.index("top_k")]
    return 0 if "top_p" in before else params.top_k


def top_k_ids(logits: Floats, k: int) -> Ids:
    """Ids of the `k` highest logits (0 and -1: all), highest first, ties by id."""
    if 0 < k < len(logits):
        near = np.flatnonzero(logits > logits.max() - _NEAR)  # quick, and mostly few
        high = logits[near] if len(near) >= k else logits
        threshold = np.partition(high, -k)[-k]
        ids = np.flatnonzero(logits >= threshold)
    else:
        ids = np.arange(len(logits))
    return ids[np.argsort(-logits[ids], kind="stable")][: k if k > 0 else None]


def log_softmax(logits: Floats) -> Floats:
    """Logarithms of the probabilities, along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def check_integer(name: str, value: object, low: int) -> None:
    """Raises UserError for an option that is no whole number from `low` up."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
        raise UserError(f"--{name} is {reprlib.repr(value)}; expected a whole number from {low} up")


def _check_number(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    number = math.nan
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        with suppress(OverflowError):  # a whole number that no float holds
            number = float(value)
    inside = (low < number if above else low <= number) and number <= high
    if not inside or math.isinf(number):
        bound = "" if math.isinf(low) else f" above {low:g}" if above else f" from {low:g}"
        limit = "" if math.isinf(high) else f" to {high:g}"
        kind = "number" if bound else "finite number"
        raise UserError(f"--{name} is {reprlib.repr(value)}; expected a {kind}{bound}{limit}")
