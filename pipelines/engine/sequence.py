"""One sequence from its prompt to its end: what is asked for, what was generated, and why it ended.

Whoever runs passes of the model (our own loop in loop.py, MAX Serve's scheduler in pipelines/server/process/batch.py)
hands logits to `Sequence.accept` and reads `end`. Nothing that goes wrong in there leaves the sequence.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from pipelines.engine.healing import Healing, TokenTexts
from pipelines.engine.sampling import NothingToDraw, SamplingParams, log_softmax, logits_needed, sample, top_k_ids
from replit.gpu.top_logits import TopLogits

Floats = npt.NDArray[np.float32]
EndReason = Literal["stop", "length", "failed"]


class Vocabulary(TokenTexts, Protocol):
    """What a sequence asks of a tokenizer. Control tokens end it, the end-of-text token among them."""


# Of a `cache_salt` that no other sequence has but those that wait for this one.
ALONE = "alone:"


@dataclass(frozen=True)
class SequenceRequest:
    """One sequence that is asked for. Plain data, which goes to another process as it is.

    `seed` makes its own random generator, so that its text does not depend on what else runs. `top_logprobs` is the
    number of alternatives beside each token, None for no log-probabilities at all. `after` names a sequence with the
    same prompt that reads it before, so that it is read once. What was read is shared between sequences of one
    `cache_salt`; those without one share with each other, and of one that begins with `ALONE` nothing is kept.
    Without `speculative` nothing is guessed for it. What is
    drawn first spells the bytes `healing`, which were taken off the prompt; it does not count as new. If it is
    `watched`, its text may end it before its tokens do.
    """

    id: str
    prompt_ids: list[int]
    params: SamplingParams
    seed: tuple[int, ...]
    top_logprobs: int | None = None
    prompt_logprobs: bool = False
    cache_salt: str | None = None
    after: str | None = None
    speculative: bool = True
    owner: str = ""
    background: bool = False
    healing: bytes = b""
    watched: bool = False

    @property
    def warms(self) -> bool:
        """Whether nothing is asked of it but that its prompt is in the cache."""
        return self.params.max_new_tokens == 0 and not self.prompt_logprobs and not self.alone

    @property
    def alone(self) -> bool:
        """Whether it shares nothing with others."""
        return self.cache_salt is not None and self.cache_salt.startswith(ALONE)


@dataclass(frozen=True)
class TokenLogprob:
    """The log-probability of a token and of the most probable ones in its place, highest first."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass(frozen=True)
class Token:
    """A generated token, with its log-probability where that was asked for."""

    id: int
    logprob: TokenLogprob | None = None


class Sequence:
    """A request while it runs."""

    def __init__(self, request: SequenceRequest, vocabulary: Vocabulary, max_length: int) -> None:
        self.request = request
        self.ids: list[int] = []
        self.end: EndReason | None = None
        self.error: str | None = None  # what went wrong, where `end` is "failed"
        self.prompt_logprobs: list[TokenLogprob | None] = [
            None
        ]  # of the prompt's ids so far; nothing precedes the first
        self.drafted = 0  # guesses that were checked, and those that were right
        self.drafted_right = 0
        self._control = vocabulary.control_token_ids
        self._generator = np.random.default_rng(request.seed)
        self._room = max_length - len(request.prompt_ids)
        wanted = request.params.max_new_tokens
        self.budget = self._room if wanted < 0 else min(self._room, wanted)
        self._healing = Healing(vocabulary, request.healing) if request.healing and self.budget > 0 else None
        if self.budget <= 0 and not request.prompt_logprobs:
            self.end = "length"

    @property
    def length(self) -> int:
        """Ids of the prompt and generated ones."""
        return len(self.request.prompt_ids) + len(self.ids)

    @property
    def logits_needed(self) -> int:
        """How many of the highest logits of a row it needs; 0: all."""
        scored = self.request.prompt_logprobs or self.request.top_logprobs is not None
        return 0 if scored or self._healing is not None else logits_needed(self.request.params)

    def score_prompt(self, rows: Floats) -> None:
        """Log-probabilities of the prompt's next ids from logits `[n, vocab]` after the ones before them."""
        prompt = self.request.prompt_ids
        for row in rows:
            position = len(self.prompt_logprobs)
            if position < len(prompt):
                self.prompt_logprobs.append(token_logprob(row, prompt[position], self.request.top_logprobs or 0))

    def accept(self, rows: Floats | Several[TopLogits], guesses: Several[int] = ()) -> list[Token]:
        """The tokens that follow, in order; sets `end` at the last one.

        `rows` are the logits after the newest id, then after each of `guesses`, which the pass took along. Every
        token is drawn as it would be without guesses; a row counts only while the guesses before it were drawn.
        """
        tokens: list[Token] = []
        try:
            if not self.ids and self.end is None:
                check_logprobs(self.prompt_logprobs)
            for row, guess in zip(rows, [*guesses, None], strict=True):
                if self.end is None and len(self.ids) >= self.budget:
                    self.end = "length"  # only its prompt was asked for
                token = None if self.end else self._next(row)
                if token is not None:
                    tokens.append(token)
                if token is None or self.end or token.id != guess:
                    break
        except NothingToDraw as error:
            self.fail(f"after {self.length} tokens, {error}")
        except Exception:  # a fault of ours: it is this sequence's alone, and said
            traceback.print_exc()
            self.fail(f"an internal error after {self.length} tokens; see the log")
        return tokens

    def _next(self, logits: Floats | TopLogits) -> Token | None:
        params = self.request.params
        allowed = None if self._healing is None else self._healing.allowed()
        token = sample(logits, params, self.request.prompt_ids, self.ids, self._generator, allowed)
        if token in self._control and not params.ignore_eos:
            self.end = "stop"
            return None
        logprob = None
        if self.request.top_logprobs is not None and not isinstance(logits, TopLogits):
            logprob = token_logprob(logits, token, self.request.top_logprobs)
        self.ids.append(token)
        if self._healing is not None:
            self._heal(self._healing, token)
        if len(self.ids) >= self.budget:
            self.end = "length"
        return Token(token, logprob)

    def _heal(self, healing: Healing, token: int) -> None:
        """A token that only spells what the prompt shows already leaves as many new ones as there were."""
        hidden = healing.take(token)
        if hidden:
            self.budget = min(self.budget + 1, self._room)
        if not healing.rest:
            self._healing = None

    def fail(self, error: str) -> None:
        """Ends the sequence with an error."""
        self.end, self.error = "failed", error

    def stop(self) -> None:
        """Ends the sequence for what its text says, which is known outside."""
        self.end = self.end or "stop"


def check_logprobs(scored: Iterable[TokenLogprob | None]) -> None:
    """Raises NothingToDraw for a log-probability that is no number: of what is only scored nothing is drawn."""
    for position, found in enumerate(scored):
        if found is not None and not math.isfinite(found.logprob):
            raise NothingToDraw(
                f"the log-probability of token {position} of the prompt is {found.logprob}; expected a finite number: "
                "the model's weights are damaged or too large"
            )


def token_logprob(logits: Floats, token: int, top: int) -> TokenLogprob:
    """The log-probability of `token` and of the `top` most probable ids, from logits `[vocab]`."""
    logprobs = log_softmax(logits)
    best: Iterable[int] = top_k_ids(logits, top) if top else ()
    return TokenLogprob(token, float(logprobs[token]), [(int(i), float(logprobs[i])) for i in best])
