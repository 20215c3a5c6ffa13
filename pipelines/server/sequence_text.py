"""From the worker's steps to text and log-probabilities: what a client sees of one sequence."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipelines.server.http.api_error import worker_failed
from pipelines.server.process.messages import Step, TokenLogprob
from pipelines.text.completion_mode import TextFilter
from pipelines.text.stream import TextStream
from weights.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class ScoredToken:
    """A token beside the text it begins at (`offset`, in characters of the sequence's own text)."""

    logprob: TokenLogprob
    offset: int


@dataclass
class Delta:
    """What became certain with a step."""

    text: str
    token_ids: list[int] = field(default_factory=list)
    scored: list[ScoredToken] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None


class LineLimits:
    """Ends a completion where a line is indented less than `indent`, or at the first line end once `late()`.

    Both as in llama.cpp (`n_indent`, `t_max_predict_ms`): the first line is never cut. A `TextFilter`.
    """

    def __init__(self, indent: int, late: Callable[[], bool]) -> None:
        self._indent = indent
        self._late = late
        self._held = ""  # a line's beginning that is still only white space
        self._decided = True  # whether the line under way may stand; the first one may
        self.stopped = False

    def push(self, text: str) -> str:
        """The part of `text` that can be shown."""
        lines = (self._held + text).splitlines(keepends=True)
        self._held = ""
        shown = ""
        for line in lines:
            whole, blank = line.endswith("\n"), not line.strip()
            if self._indent and not self._decided:
                if blank and not whole:
                    self._held = line
                    return shown
                self.stopped = not blank and len(line) - len(line.lstrip(" \t")) < self._indent
                if self.stopped:
                    return shown
            shown += line
            self._decided = not whole
            self.stopped = whole and self._late()
            if self.stopped:
                return shown
        return shown

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        return "" if self.stopped else self._held


class SequenceText:
    """Takes steps, gives deltas. Never shows a part of a stop string or of a character."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str],
        scored: bool,
        limits: LineLimits | None = None,
        filters: Sequence[TextFilter] = (),
    ) -> None:
        """`filters` see the text after `stop` and `limits`, one after the other."""
        self._stream = TextStream(tokenizer, stop)
        self._limits = limits
        self._filters = (*([limits] if limits else []), *filters)
        self._tokenizer = tokenizer
        self._scored = scored
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._decoded = 0  # characters of all tokens so far
        self._shown = 0
        self._pending: deque[ScoredToken] = deque()
        self.tokens = 0

    @property
    def stop_text(self) -> str | None:
        """The stop string that ended the text."""
        return self._stream.stop_text

    def push(self, step: Step) -> Delta:
        """The delta of one step. Raises ApiError if the worker has failed."""
        if step.end == "failed":
            raise worker_failed()
        delta = Delta("")
        if step.token is not None:
            self.tokens += 1
            delta.token_ids.append(step.token)
            delta.text = self._stream.push(step.token)
            if self._scored and step.logprob is not None:
                self._pending.append(ScoredToken(step.logprob, self._decoded))
                self._decoded += len(self._decoder.decode(self._tokenizer.token_bytes(step.token)))
        if step.end is not None:
            delta.text += self._stream.finish()
        over = step.end is not None or self._stream.stopped
        for part in self._filters:
            delta.text = part.push(delta.text)
            if over:
                delta.text += part.finish()
            over = over or part.stopped
        delta.finish = "stop" if self.stopped else step.end
        self._shown += len(delta.text)
        delta.scored = self._release(everything=step.end is not None and not self.stopped)
        return delta

    @property
    def stopped(self) -> bool:
        """Whether the text itself has ended the sequence: a stop string, a limit on lines, the end of its block."""
        return self._stream.stopped or any(part.stopped for part in self._filters)

    @property
    def limited(self) -> bool:
        """Whether a limit on lines has ended the sequence."""
        return self._limits is not None and self._limits.stopped

    def _release(self, everything: bool) -> list[ScoredToken]:
        """The tokens whose text has begun to be shown; a stop string takes its tokens along."""
        released = []
        while self._pending and (everything or self._pending[0].offset < self._shown):
            released.append(self._pending.popleft())
        return released


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    """A name for a token in log-probabilities: its text, or its bytes where they are none by themselves."""
    raw = tokenizer.token_bytes(token_id)
    if not raw:
        return f"<token {token_id}>"
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
