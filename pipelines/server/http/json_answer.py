"""Answers of any size as JSON, without holding up other requests: large ones are written in pieces, in a thread.

`json.dumps` holds Python's lock until all is written: 50 ms for 400 000 token ids, seconds for log-probabilities of
many completions. What is large is made while it is written (`Rows`): millions of objects that wait for it would
also hold up whatever Python's garbage collector then looks through.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

# Values that are written in one go, which takes a millisecond.
_PIECE = 4096
_SLICE = 256  # of a list, looked at together


class Rows:
    """A list whose items are made when they are written: `make` of each of `items`."""

    def __init__(self, make: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self._make = make
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, part: slice) -> list[Any]:
        return [self._make(item) for item in self._items[part]]


async def json_answer(value: Any) -> Response:
    """The same bytes as `JSONResponse(value)`."""
    if not _is_large(value):
        return JSONResponse(value)
    content = await asyncio.to_thread(lambda: "".join(_pieces(value)).encode())
    return Response(content, media_type="application/json")


def _is_large(value: Any) -> bool:
    """Whether there are more than `_PIECE` values in it."""
    seen, left = 0, [value]
    while left and seen <= _PIECE:
        part = left.pop()
        seen += 1
        if isinstance(part, dict):
            left += part.values()
        elif isinstance(part, Rows):
            return True
        elif isinstance(part, list):
            left += part[: _PIECE + 1]
    return seen > _PIECE


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and _is_large(value):
        yield "{"
        for index, (name, part) in enumerate(value.items()):
            yield f"{',' if index else ''}{_dumps(name)}:"
            yield from _pieces(part)
        yield "}"
    elif isinstance(value, (list, Rows)) and _is_large(value):
        yield "["
        for start in range(0, len(value), _SLICE):
            yield "," if start else ""
            yield from _items(value[start : start + _SLICE])
        yield "]"
    else:
        yield _dumps(value)


def _items(values: list[Any]) -> Iterator[str]:
    """A part of a list, without its brackets."""
    if not _is_large(values):
        yield _dumps(values)[1:-1]
        return
    for index, part in enumerate(values):
        yield "," if index else ""
        yield from _pieces(part)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def all_rows(value: Any) -> list[Any]:
    """For `json.dumps`, of what it does not know: all of a `Rows`. Raises TypeError for anything else."""
    if isinstance(value, Rows):
        return value[:]
    raise TypeError(f"{type(value).__name__} is no JSON")
