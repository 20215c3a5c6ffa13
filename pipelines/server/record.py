"""What is remembered of a request until it ends: one log line, and the metrics."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import time
import traceback
import uuid
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pipelines.server.metrics import Metrics


@dataclass
class Record:
    """A request's figures. Times are `time.monotonic()`."""

    route: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: float = field(default_factory=time.monotonic)
    status: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    drafted: int = 0  # guesses that were checked, and those that were right
    drafted_right: int = 0
    started: float | None = None
    first_token: float | None = None
    user: str | None = None
    client: str = ""  # key and address; with the connection's port the owner of what is asked for
    owner: str = ""
    key: str = field(default="", repr=False)  # as the client gave it, checked where keys are asked for
    note: str | None = None
    headers: dict[str, str] = field(default_factory=dict)  # of the answer

    def token(self, started: float) -> None:
        """A token has come, of a sequence whose first pass was at `started`."""
        if self.first_token is None:
            self.first_token = time.monotonic()
        if started and (self.started is None or started < self.started):
            self.started = started

    def observe(self, metrics: Metrics) -> None:
        """Adds the finished request to the metrics."""
        metrics.requests.labels(self.route, str(self.status)).inc()
        metrics.prompt_tokens.inc(self.prompt_tokens)
        metrics.cached_tokens.inc(self.cached_tokens)
        metrics.generated_tokens.inc(self.generated_tokens)
        metrics.drafted_tokens.inc(self.drafted)
        metrics.accepted_tokens.inc(self.drafted_right)
        if self.started is not None:
            metrics.queue_time.observe(max(self.started - self.created, 0.0))
        if self.first_token is not None:
            metrics.first_token.observe(self.first_token - self.created)

    def fields(self) -> dict[str, Any]:
        """The log line's fields; milliseconds."""

        def since(moment: float | None) -> float | None:
            return None if moment is None else round((moment - self.created) * 1000, 1)

        found = {
            "id": self.id,
            "route": self.route,
            "status": self.status,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "generated_tokens": self.generated_tokens,
            "draft_tokens": self.drafted or None,
            "draft_tokens_accepted": self.drafted_right if self.drafted else None,
            "queue_ms": since(self.started),
            "first_token_ms": since(self.first_token),
            "total_ms": since(time.monotonic()),
            "user": self.user,
            "note": self.note,
        }
        return {name: value for name, value in found.items() if value is not None}


# Of a field that comes from outside; why the server ends, and traces, are kept longer.
LONGEST_FIELD = 200
LONGEST_TRACE = 8000
_LONG = ("trace", "reason")


class Log:
    """Lines on standard error: readable ones, or a JSON object each."""

    def __init__(self, form: Literal["text", "json"]) -> None:
        self._json = form == "json"

    def request(self, record: Record) -> None:
        """The one line of a request."""
        self._write("request", record.fields())

    def event(self, message: str, **fields: Any) -> None:
        """Anything else that an operator should know."""
        self._write(message, fields)

    def take_library_lines(self) -> None:
        """What libraries log comes in the same form: uvicorn's warnings, asyncio's errors."""
        root = logging.getLogger()
        root.handlers = [_Handler(self)]
        root.setLevel(logging.WARNING)
        if self._json:  # what Python itself would print
            logging.captureWarnings(True)
            sys.excepthook = self._uncaught
            threading.excepthook = lambda args: self._uncaught(args.exc_type, args.exc_value, args.exc_traceback)
            sys.unraisablehook = lambda args: self._uncaught(args.exc_type, args.exc_value, args.exc_traceback)

    def _uncaught(self, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        told = "".join(traceback.format_exception(kind, error, trace))
        self.event("error", what=f"{kind.__name__}: {error}", trace=told)

    def _write(self, message: str, fields: dict[str, Any]) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        fields = {name: shortened(name, value) for name, value in fields.items()}
        if self._json:
            line = json.dumps({"time": now, "message": message, **fields})
        else:
            pairs = "".join(f" {name}={_plain(value)}" for name, value in fields.items())
            line = f"{now} {message}{pairs}"
        with contextlib.suppress(OSError, ValueError):  # a full disk or a closed pipe stops no server
            print(f"{line}\n", end="", file=sys.stderr, flush=True)  # in one piece: other threads write too


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        fields = {"source": record.name, "what": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            fields["trace"] = "".join(traceback.format_exception(*record.exc_info))
        self._log.event(record.levelname.lower(), **fields)


def shortened(name: str, value: Any) -> Any:
    """A field's value, the end of a long text cut off."""
    most = LONGEST_TRACE if name in _LONG else LONGEST_FIELD
    if not isinstance(value, str) or len(value) <= most:
        return value
    return f"{value[:most]}... ({len(value)} characters)"


def _plain(value: Any) -> str:
    """A value on one line, quoted where it would be taken for several."""
    text = str(value)
    return text if text.isprintable() and " " not in text and "=" not in text else json.dumps(text)
