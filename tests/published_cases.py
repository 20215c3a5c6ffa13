"""Published test cases of other servers as requests to this one: what a case is, and how it is sent.

published_llama.py and published_vllm.py hold the cases; test_published_cases.py sends every request and looks at what
comes back. published_page.py writes the page that lists them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

Answer = Any  # JSON: an object, a list, or the list of a stream's events
Check = Callable[[Answer], object]
Verdict = Literal["met", "refused", "otherwise"]


@dataclass(frozen=True)
class Request:
    """One request of a case. `check` sees the answer, or the events of a stream, and says whether it is right."""

    path: str
    body: Any = None
    check: Check | None = None
    status: int = 200
    method: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    said: str = ""  # what an error's message has in it


@dataclass(frozen=True)
class Case:
    """One published case: met; refused by name; or answered otherwise, and `why`."""

    name: str
    verdict: Verdict
    requests: tuple[Request, ...]
    why: str = ""


@dataclass(frozen=True)
class Group:
    """The cases of one file. Those in `elsewhere` are of things that this server does not have, and `why`."""

    file: str
    cases: tuple[Case, ...] = ()
    elsewhere: tuple[str, ...] = ()
    why: str = ""


def met(name: str, *requests: Request, why: str = "") -> Case:
    """A case that is answered as its server answers it."""
    return Case(name, "met", requests, why)


def otherwise(name: str, why: str, *requests: Request) -> Case:
    """A case that is answered in another way, on purpose."""
    return Case(name, "otherwise", requests, why)


def refused(name: str, path: str, body: Any, field_name: str, why: str = "", status: int = 400) -> Case:
    """A case that is refused by the name of the field, or with 404 for a route that is not here."""
    told = f"`{field_name}` is refused by name" if status == 400 else f"there is no route `{path}`"
    return Case(name, "refused", (Request(path, body, status=status, said=field_name),), why or told)


def names(text: str) -> tuple[str, ...]:
    """Names written side by side."""
    return tuple(text.split())


def events(answer: httpx.Response) -> Answer:
    """A stream's events, the lines of Prometheus, or the JSON."""
    kind = answer.headers.get("content-type", "").split(";")[0]
    if kind == "text/event-stream":
        found = [line.removeprefix("data: ") for line in answer.text.split("\n") if line]
        return [json.loads(line) for line in found if line != "[DONE]"]
    return answer.json() if kind == "application/json" else answer.text


def run(case: Case, url: str) -> None:
    """Sends a case's requests one after the other. Raises AssertionError where an answer is not as it should be."""
    for request in case.requests:
        method = request.method or ("GET" if request.body is None else "POST")
        sent = {"content": request.body} if isinstance(request.body, str) else {"json": request.body}
        headers = {"Content-Type": "application/json"} if isinstance(request.body, str) else {}
        answer = httpx.request(
            method, url + request.path, headers=headers | request.headers, timeout=120,
            **(sent if request.body is not None else {}),
        )  # fmt: skip
        assert answer.status_code == request.status, (case.name, answer.status_code, answer.text[:500])
        assert request.said in answer.text, (case.name, answer.text[:500])
        if request.check is not None:
            found = events(answer)
            assert request.check(found), (case.name, str(found)[:800])
