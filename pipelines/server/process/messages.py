"""What the HTTP process and the model worker say to each other beside a `SequenceRequest`, pickled over one pipe.

Plain data only: the HTTP process must not import MAX.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.engine.sequence import EndReason, Token, TokenLogprob


@dataclass(frozen=True)
class Cancel:
    """Stop the generation `id`, whose client has gone or has enough."""

    id: str


@dataclass(frozen=True)
class Step:
    """What one pass of the model added to a sequence: no token at its end, several where guesses were right.

    `end` "failed" comes with the sequence's `error`, or without one where the whole worker is gone.
    """

    id: str
    tokens: tuple[Token, ...]
    end: EndReason | None = None
    error: str | None = None
    cached_tokens: int = 0  # of the prompt, found in the prefix cache
    started: float = 0.0  # time.monotonic() when the first pass over the prompt began
    prompt_logprobs: list[TokenLogprob | None] | None = None  # with the first step, if asked for
    drafted: int = 0  # guesses that were checked so far, and those that were right
    drafted_right: int = 0


@dataclass(frozen=True)
class Load:
    """The worker's state after a pass, for metrics."""

    running: int
    waiting: int
    pages_used: int
    pages_total: int
    preempted: int

    def running_of(self, in_flight: int) -> int:
        """How many run of those that still do: some may have been cancelled since."""
        return min(self.running, in_flight)


@dataclass(frozen=True)
class Ready:
    """The model is loaded."""


@dataclass(frozen=True)
class Failed:
    """The worker cannot go on. `user_error`: a line for the user rather than a bug."""

    message: str
    user_error: bool = False


@dataclass(frozen=True)
class Loading:
    """A line about what takes time while loading."""

    message: str


@dataclass(frozen=True)
class Steps:
    """All that one pass of the model brought."""

    steps: list[Step]
    load: Load
