"""One line of a batch file: a request, or what is wrong with the line. Ids and the seed follow from its `custom_id`."""

from __future__ import annotations

import hashlib
import json
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, BinaryIO

URLS = ("/v1/completions", "/v1/chat/completions", "/v1/fim/completions")
ID_PREFIX = "batch_req_"
ID_DIGITS = 24
# A longer line is refused, and never in memory as a whole.
LONGEST_LINE = 16 << 20
# Bytes up to which a line is one of usual length.
_USUAL_LINE = 64 << 10
# A line that is nested deeper is refused: how deep Python goes depends on where it begins.
DEEPEST_LINE = 200


@dataclass(frozen=True)
class Line:
    """A line of the input. With an `error`, (code, message), it asks for nothing.

    `index` counts all lines, from 0. `size` is that of the line in bytes where there is a body.
    """

    index: int
    custom_id: str | None
    url: str = ""
    body: Any = None
    error: tuple[str, str] | None = None
    duplicate: bool = False
    size: int = 0

    @property
    def weight(self) -> int:
        """How many lines of usual length it counts for where memory is shared out."""
        return 1 + self.size // _USUAL_LINE

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits that name the line: by its `custom_id`, where it has one of its own."""
        named = self.custom_id is not None and not self.duplicate
        name = f"custom_id {self.custom_id}" if named else f"line {self.index}"
        return hashlib.sha256(name.encode()).hexdigest()

    @property
    def id(self) -> str:
        """The id of its result."""
        return ID_PREFIX + self.digest[:ID_DIGITS]

    @property
    def key(self) -> int:
        """The same as a number of 64 bits, by which millions are remembered."""
        return key_of(self.digest)

    @property
    def request_id(self) -> str:
        """The id of its answer."""
        return self.digest[:32]

    @property
    def seed(self) -> int:
        """48 bits for a request that states none."""
        return int(self.digest[-12:], 16)

    @property
    def beginning(self) -> tuple[str, str]:
        """What lines are ordered by, so that like beginnings are read one after the other."""
        body = self.body if isinstance(self.body, dict) else {}
        text = body.get("messages") if "messages" in body else body.get("prompt")
        return self.url, text if isinstance(text, str) else json.dumps(text)

    def repeated(self) -> Line:
        """The line as one whose `custom_id` was there before."""
        shown = json.dumps(self.custom_id)[:80]
        message = f"the custom_id {shown} stands in an earlier line; expected one of its own"
        return replace(self, error=("duplicate_custom_id", message), duplicate=True)


def key_of(digest: str) -> int:
    """`Line.key` for a digest, or for the digits of an id."""
    return int(digest[:16], 16)


def read_lines(stream: BinaryIO) -> Iterator[bytes]:
    """All lines, without marks of UTF-8; of one that is too long so much that this can be seen."""
    while raw := stream.readline(LONGEST_LINE + 1):
        part = raw
        while not part.endswith(b"\n") and len(part) > LONGEST_LINE:
            part = stream.readline(LONGEST_LINE + 1)
        yield raw.removeprefix(BOM_UTF8)  # an editor's, also where files were put together


def parse_line(index: int, raw: bytes) -> Line:
    """What a line says; never raises."""
    if len(raw) > LONGEST_LINE:
        return _wrong(index, None, f"the line is too long; expected at most {LONGEST_LINE} bytes")
    try:
        found = json.loads(raw.decode("utf-8", "surrogatepass"))  # of bytes it would guess the encoding
    except RecursionError:
        return _wrong(index, None, _TOO_DEEP)
    except ValueError as error:
        return _wrong(index, None, f"the line is no JSON: {str(error)[:200]}")
    if raw.count(b"[") + raw.count(b"{") > DEEPEST_LINE and _is_deeper(found, DEEPEST_LINE):
        return _wrong(index, None, _TOO_DEEP)
    if not isinstance(found, dict):
        return _wrong(index, None, "the line is no JSON object; expected custom_id, method, url and body")
    custom_id = found.get("custom_id")
    if not isinstance(custom_id, str) or not _is_text(custom_id):
        return _wrong(index, None, "the line's custom_id is missing or no text; expected a text of its own")
    return replace(_checked(index, custom_id, found), size=len(raw))


_TOO_DEEP = f"the line is nested too deeply; expected at most {DEEPEST_LINE} lists and objects in one another"


def _is_deeper(value: Any, most: int) -> bool:
    """Whether a value has more levels of lists and objects than `most`."""
    level = [value]
    for _ in range(most):
        lists = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (list, dict)))
        level = [inner for items in lists for inner in items]
    return any(isinstance(item, (list, dict)) for item in level)


def _checked(index: int, custom_id: str, found: dict[str, Any]) -> Line:
    method, url, body = found.get("method", "POST"), found.get("url"), found.get("body")
    if method != "POST":
        return _wrong(index, custom_id, f"the line's method is {_shown(method)}; expected POST")
    if url not in URLS:
        return _wrong(index, custom_id, f"the line's url is {_shown(url)}; expected {', '.join(URLS)}")
    return Line(index, custom_id, url, body)


def _wrong(index: int, custom_id: str | None, message: str) -> Line:
    return Line(index, custom_id, error=("invalid_line", f"line {index + 1}: {message}"))


def _shown(value: Any) -> str:
    return json.dumps(value)[:80]


def _is_text(value: str) -> bool:
    """JSON can carry half a surrogate pair, which no file of UTF-8 can."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
