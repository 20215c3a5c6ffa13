"""What the HTTP process and the model worker say to each other, pickled over one pipe.

Plain data only: the HTTP process must not import MAX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.engine.sampling import SamplingParams

EndReason = Literal["stop", "length", "failed"]


@dataclass(frozen=True)
class GenerationRequest:
    """One sequence to continue. The worker ends it at the end-of-text token or after `max_new_tokens`."""

    id: str
    prompt_ids: list[int]
    params: SamplingParams  # `max_new_tokens` from 0 up; `stop` strings are the HTTP process's business
    seed: tuple[int, int]
    top_logprobs: int | None = None  # alternatives beside each token; None: no log-probabilities
    prompt_logprobs: bool = False
    use_cache: bool = True


@dataclass(frozen=True)
class Cancel:
    """Stop the generation `id`, whose client has gone or has enough."""

    id: str


@dataclass(frozen=True)
class TokenLogprob:
    """The log-probability of a token and of the most probable ones in its place, highest first."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass(frozen=True)
class Step:
    """What one pass of the model added to a generation.

    `token` is None where nothing was generated: at the end-of-text token, and for no new tokens at all.
    """

    id: str
    token: int | None
    end: EndReason | None = None
    logprob: TokenLogprob | None = None
    cached_tokens: int = 0  # of the prompt, found in the prefix cache
    started: float = 0.0  # time.monotonic() when the first pass over the prompt began
    prompt_logprobs: list[TokenLogprob | None] | None = None  # with the first step, if asked for


@dataclass(frozen=True)
class Load:
    """The worker's state after a pass, for metrics."""

    running: int
    waiting: int
    pages_used: int
    pages_total: int
    preempted: int


@dataclass(frozen=True)
class Ready:
    """The model is loaded."""

    pages_total: int


@dataclass(frozen=True)
class Failed:
    """The worker cannot go on. `user_error`: a line for the user rather than a bug."""

    message: str
    user_error: bool = False


@dataclass(frozen=True)
class Progress:
    """A line about what takes time while loading."""

    message: str


@dataclass(frozen=True)
class Steps:
    """All that one pass of the model brought."""

    steps: list[Step]
    load: Load
