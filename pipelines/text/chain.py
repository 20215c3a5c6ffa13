"""From one sequence's tokens to the text that a person sees: one chain, for the command line, Python and the server.

Its order is `build_chain`'s list: bytes to characters, stop strings, limits on lines, the completion mode, the text
after the cursor, whitespace at the end, the file's line ends. Log-probabilities are told with the text they belong to.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipelines.engine.plan import Plan
from pipelines.engine.sequence import EndReason, Token, TokenLogprob
from pipelines.text.completion_mode import Block, Line, Strip, TextFilter
from pipelines.text.line_ends import CrLf, with_lf
from pipelines.text.repeated_suffix import RepeatedSuffix
from pipelines.text.stream import TextStream
from weights.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class ScoredToken:
    """A token beside the text it begins at (`offset`, in characters of the sequence's own text)."""

    logprob: TokenLogprob
    offset: int


@dataclass
class Delta:
    """What became certain: text, the ids that came, and the log-probabilities of the text shown."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    scored: list[ScoredToken] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None

    def join(self, more: Delta) -> None:
        """Appends what came later."""
        self.text += more.text
        self.token_ids += more.token_ids
        self.scored += more.scored
        self.finish = more.finish or self.finish


class SequenceText:
    """Takes tokens, gives deltas. Never shows a part of a stop string or of a character."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        filters: Sequence[TextFilter] = (),
        limits: TextFilter | None = None,
        hidden: int = 0,
        crlf: bool = False,
    ) -> None:
        """`filters` see the text after `stop`, one after the other; `limits` is the one of them that counts as such.

        The first `hidden` bytes stand in the prompt already; tokens that have no others are not told. With `crlf` the
        text is told with such line ends.
        """
        self._hidden = hidden
        self._stops = {with_lf(text) if crlf else text: text for text in stop}
        self._told_as: TextFilter | None = CrLf() if crlf else None  # of tokens one by one
        self.drawn: list[int] = []  # every id, those that are not told too
        self._stream = TextStream(tokenizer, tuple(self._stops))
        self._filters = (*filters, CrLf()) if crlf else tuple(filters)
        self._limits = limits
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._decoded = 0  # characters of all tokens so far
        self._shown = 0
        self._pending: deque[ScoredToken] = deque()
        self.tokens = 0

    @property
    def stop_text(self) -> str | None:
        """The stop string that ended the text, as it was given."""
        return None if self._stream.stop_text is None else self._stops[self._stream.stop_text]

    @property
    def stopped(self) -> bool:
        """Whether the text itself has ended the sequence: a stop string, a limit on lines, the end of its block."""
        return self._stream.stopped or (bool(self._filters) and any(part.stopped for part in self._filters))

    @property
    def limited(self) -> bool:
        """Whether a limit on lines has ended the sequence."""
        return self._limits is not None and self._limits.stopped

    def push(self, tokens: Sequence[Token], end: EndReason | None = None) -> Delta:
        """What some tokens make certain, and with the sequence's `end` everything; tokens after a stop are dropped."""
        whole = Delta()
        for index, token in enumerate(tokens):
            self._push(whole, token, end if index == len(tokens) - 1 else None)
            if self.stopped:
                return whole
        if end is not None and not tokens:
            self._push(whole, None, end)
        return whole

    def _push(self, delta: Delta, token: Token | None, end: EndReason | None) -> None:
        text = "" if token is None else self._take(token, delta)
        if end is not None:
            text += self._stream.finish()
        over = end is not None or self._stream.stopped
        for part in self._filters:
            text = part.push(text)
            if over:
                text += part.finish()
            over = over or part.stopped
        if self.stopped:
            delta.finish = "stop"
        elif end in ("stop", "length"):
            delta.finish = end
        delta.text += text
        self._shown += len(text)
        if self._pending:
            delta.scored += self._release(everything=end is not None and not self.stopped)

    def _take(self, token: Token, delta: Delta) -> str:
        """The text that a token makes certain."""
        self.drawn.append(token.id)
        skipped = 0
        if self._hidden:
            size = len(self._tokenizer.token_bytes(token.id))
            skipped = min(self._hidden, size)
            self._hidden -= skipped
            if skipped and skipped == size:
                return ""
        self.tokens += 1
        delta.token_ids.append(token.id)
        if token.logprob is not None:
            self._pending.append(ScoredToken(token.logprob, self._decoded))
            text = self._decoder.decode(self._tokenizer.token_bytes(token.id)[skipped:])
            self._decoded += len(text if self._told_as is None else self._told_as.push(text))
        return self._stream.push(token.id, skipped)

    def _release(self, everything: bool) -> list[ScoredToken]:
        """The tokens whose text has begun to be shown; a stop string takes its tokens along."""
        released = []
        while self._pending and (everything or self._pending[0].offset < self._shown):
            released.append(self._pending.popleft())
        return released


def build_chain(tokenizer: Tokenizer, plan: Plan) -> SequenceText:
    """The text of a planned sequence."""
    params, prompt = plan.params, plan.prompt
    filters: list[TextFilter] = []
    if plan.limits is not None:
        filters.append(plan.limits)
    if params.completion == "line":
        filters.append(Line())
    elif params.completion == "block":
        filters.append(Block(prompt.block))
    if prompt.after:
        filters.append(RepeatedSuffix(prompt.after))
    if params.strip:
        filters.append(Strip())
    return SequenceText(tokenizer, params.stop, filters, plan.limits, len(prompt.healing), prompt.crlf)


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    """A name for a token in log-probabilities: its text, or its bytes where they are none by themselves."""
    if token_id in tokenizer.control_texts:
        return tokenizer.control_texts[token_id]
    raw = tokenizer.token_bytes(token_id)
    if not raw:
        return f"<token {token_id}>"
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
