"""What clients really sent, recorded while they ran against this server or (`read`) read from their sources.

Each line of cases/recorded_requests.jsonl: the client with its version, method, route, headers, body. docs/editors.md
and docs/server.md tell what was run. Here each gets 200, nothing of it is refused, and the answer has what clients of
that route read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from running_server import RunningServer

LINES = (Path(__file__).parent / "cases/recorded_requests.jsonl").read_text().splitlines()
CASES: list[dict[str, Any]] = [json.loads(line) for line in LINES]
# Fields that other servers know and that are ignored here; those servers ignore them here too, or they change nothing.
IGNORED = {
    "gen.nvim e09a8db": "num_predict",  # beside `options`, where Ollama does not look either
    "Twinny 193d14c, openai-compatible": "keep_alive, options",
    "Copilot's extension, older engine name": "extra, nwo",
}


def ask(server: RunningServer, case: dict[str, Any]) -> tuple[int, dict[str, str], str]:
    content = None if case["body"] is None else json.dumps(case["body"]).encode()
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=120)) as connection:
        connection.request(case["method"], case["route"], content, case["headers"])
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()


def objects(kind: str, text: str) -> list[dict[str, Any]]:
    """The answer, or the events of a stream, or the lines of Ollama's."""
    if kind == "application/x-ndjson":
        return [json.loads(line) for line in text.splitlines()]
    if kind == "text/event-stream":
        found = [line.removeprefix("data: ") for line in text.split("\n") if line]
        assert found[-1] == "[DONE]" or "choices" not in found[0]
        return [json.loads(line) for line in found if line != "[DONE]"]
    return [json.loads(text)]


def pieces(route: str, found: list[dict[str, Any]]) -> Iterator[str]:
    """The text where clients of the route look for it. A field that is missing is an error."""
    for event in found:
        if route.endswith("completion"):
            yield event["content"]
        elif route == "/api/generate":
            yield event["response"]
        elif route == "/api/chat":
            yield event["message"]["content"]
        else:
            for choice in event["choices"]:
                delta = choice.get("delta", choice.get("message"))
                yield choice["text"] if delta is None else delta["content"]


OTHERS = {"/api/tags": "models", "/api/show": "template", "/api/pull": "status", "/tokenize": "tokens"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["client"])
def test_it_is_answered(server: RunningServer, case: dict[str, Any]) -> None:
    status, headers, text = ask(server, case)
    assert status == 200, text
    assert headers.get("x-ignored-fields", "") == IGNORED.get(case["client"], "")
    found = objects(headers["content-type"].split(";")[0], text)
    if case["route"] in OTHERS:
        assert OTHERS[case["route"]] in found[0]
        return
    body = case["body"]
    if not body.get("prompt") and not body.get("messages"):
        assert found[0]["done_reason"] == "load"
        return
    texts = ["".join(pieces(case["route"], found))]
    while not texts[-1] and len(texts) < 6:  # what is drawn may be the end at once
        _, _, text = ask(server, case)
        texts.append("".join(pieces(case["route"], objects(headers["content-type"].split(";")[0], text))))
    assert texts[-1]
    streamed = body.get("stream", case["route"].startswith("/api/"))
    assert streamed or len(found) == 1
    if "done" in found[-1]:
        assert [event["done"] for event in found] == [False] * (len(found) - 1) + [True]


def test_a_suggestion_goes_on_in_the_middle_of_a_word(server: RunningServer) -> None:
    """Every plugin that asks for a gap after `retu` gets what follows it, whatever markers and names it sends."""
    asked = [case for case in CASES if "        retu" in json.dumps(case["body"])]
    assert len(asked) >= 15
    for case in asked:
        body = case["body"]
        cold: dict[str, Any] = {"temperature": 0}  # where the route reads it; some clients send Ollama's to others
        cold |= {"options": body["options"] | cold} if "options" in body else {}
        _, headers, text = ask(server, case | {"body": body | cold | {"stream": False}})
        (suggestion,) = pieces(case["route"], objects(headers["content-type"].split(";")[0], text))
        assert suggestion.startswith("rn"), (case["client"], suggestion)
