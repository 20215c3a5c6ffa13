"""Published test cases of other servers as requests to this one: what a case is, and the page that lists them.

published_llama.py and published_vllm.py hold the cases; test_published_cases.py sends every request and looks at what
comes back. `python tests/published_cases.py > docs/server_cases.md` writes the page, and a test says if it is old.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
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


def _lines(groups: Iterable[Group]) -> Iterable[str]:
    for group in groups:
        for case in group.cases:
            yield f"| `{group.file}` {case.name} | {case.verdict} | {case.why} |"
        for name in group.elsewhere:
            yield f"| `{group.file}` {name} | not here | {group.why} |"


def page(llama: Iterable[Group], vllm: Iterable[Group]) -> str:
    """docs/server_cases.md."""
    tables = {
        "llama.cpp: tools/server/tests/unit (as in llama-cpp-python 0.3.36)": llama,
        "vLLM 0.33: tests/entrypoints": vllm,
    }
    told = [
        "# Test cases of other servers", "",
        "Each case that llama.cpp and vLLM publish for what this server has, and what it does here: **met**; **refused** (an",
        "error that names the field or route); **otherwise** (another answer, and why); **not here** (of a thing that this",
        "server does not have). Their requests, for our model and checks, are in tests/published_llama.py and",
        "tests/published_vllm.py; `pytest tests/test_published_cases.py` sends them all, and",
        "`python tests/published_cases.py > docs/server_cases.md` writes this page.", "",
    ]  # fmt: skip
    for title, groups in tables.items():
        told += [f"## {title}", "", "| case | here | |", "|---|---|---|", *_lines(groups), ""]
    return "\n".join(told)


if __name__ == "__main__":
    from published_llama import GROUPS as LLAMA
    from published_vllm import GROUPS as VLLM

    print(page(LLAMA, VLLM), end="")
