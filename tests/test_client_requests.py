"""What clients send by default, and what they need back: each line of cases/client_requests.jsonl, over a socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from running_server import RunningServer

LINES = (Path(__file__).parent / "cases/client_requests.jsonl").read_text().splitlines()
CASES: list[dict[str, Any]] = [json.loads(line) for line in LINES]
LLAMA_VIM = CASES[0]["body"]


def objects(answer: httpx.Response) -> list[dict[str, Any]]:
    """The answer, or the events of a stream, or the lines of Ollama's."""
    kind = answer.headers["content-type"].split(";")[0]
    if kind == "application/x-ndjson":
        return [json.loads(line) for line in answer.text.splitlines()]
    if kind == "text/event-stream":
        found = [line.removeprefix("data: ") for line in answer.text.split("\n") if line]
        return [json.loads(line) for line in found if line != "[DONE]"]
    return [answer.json()]


def chat_text(events: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


def completion_text(events: list[dict[str, Any]]) -> str:
    return "".join(choice["text"] for event in events for choice in event["choices"])


def flat_content(found: list[Any]) -> None:
    (answer,) = found
    assert answer["content"].strip()
    assert set(answer) == set(LLAMA_VIM["response_fields"])


def three_answers(found: list[Any]) -> None:
    assert [sorted(answer)[0] for answer in found[0]] == ["content"] * 3
    assert len(found[0]) == 3


def content_of_one(found: list[Any]) -> None:
    assert isinstance(found[0]["content"], str)


def warmed(found: list[Any]) -> None:
    assert found[0].get("content", "") == ""


def message(found: list[Any]) -> None:
    assert found[0]["choices"][0]["message"]["content"]


def chat_stream(found: list[Any]) -> None:
    assert chat_text(found)
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"


def completion_stream(found: list[Any]) -> None:
    assert found[-1]["choices"][0]["finish_reason"] in ("stop", "length")
    assert found[0]["object"] == "text_completion"


def llama_stream(found: list[Any]) -> None:
    assert "".join(event["content"] for event in found)
    assert [event["stop"] for event in found] == [False] * (len(found) - 1) + [True]


def usage_everywhere(found: list[Any]) -> None:
    counts = [event["usage"]["completion_tokens"] for event in found]
    assert counts == sorted(counts)
    assert counts[-1] == 16
    assert found[-1]["choices"] == []


def nothing_hidden(found: list[Any]) -> None:
    assert found[-1]["usage"]["completion_tokens"] <= 4
    assert not any("obfuscation" in event for event in found)


def text_of_eight(found: list[Any]) -> None:
    assert found[0]["usage"]["completion_tokens"] <= 8


def seven_logprobs(found: list[Any]) -> None:
    tops = found[0]["choices"][0]["logprobs"]["top_logprobs"]
    assert all(len(top) in (7, 8) for top in tops)  # the token itself comes along where it is none of them


def two_answers(found: list[Any]) -> None:
    assert [answer["tokens_evaluated"] for answer in found[0]][1] == 3
    assert [answer["index"] for answer in found[0]] == [0, 1]


def three_probabilities(found: list[Any]) -> None:
    told = found[0]["completion_probabilities"]
    assert len(told) == found[0]["tokens_predicted"] == 4
    assert all(len(token["top_logprobs"]) == 3 for token in told)


def any_content(found: list[Any]) -> None:
    assert "content" in found[0]


def ollama_lines(found: list[Any]) -> None:
    assert [line["done"] for line in found] == [False] * (len(found) - 1) + [True]
    assert all(isinstance(line["response"], str) for line in found)
    assert found[-1]["done_reason"] in ("stop", "length")
    assert 0 < found[-1]["eval_count"] <= 16
    assert found[-1]["prompt_eval_count"] > 20


def marker_tokens(found: list[Any]) -> None:
    assert found[0]["done"] is True
    assert found[0]["prompt_eval_count"] < 12  # spelled out, the three markers alone would be more


NEEDS: dict[str, Callable[[list[Any]], None]] = {
    "llama.vim, fill-in-the-middle": flat_content,
    "llama.vim, ring warm-up": warmed,
    "llama.vim, instruct edit, warm-up": lambda found: None,
    "llama.vim, instruct edit": chat_stream,
    "llama.vscode, fill-in-the-middle, default settings": three_answers,
    "llama.vscode, warm-up": warmed,
    "llama.vscode, chat": message,
    "llama.vscode, chat edit": message,
    "Tabby, llama.cpp/completion": llama_stream,
    "Twinny, llama.cpp": llama_stream,
    "Twinny, OpenAI-compatible": completion_stream,
    "Continue, FIM of its openai, llama.cpp, vllm, lmstudio, mistral adapters": chat_stream,
    "Continue, FIM of its deepseek adapter": completion_stream,
    "Copilot with a proxy override": completion_stream,
    "guidellm": usage_everywhere,
    "openai SDK, a conversation that goes on with the message it got": message,
    "openai SDK, options of newer versions": nothing_hidden,
    "any editor, cursor at the start of a file": text_of_eight,
    "vLLM's clients": seven_logprobs,
    "llama.cpp's neutral values": any_content,
    "llama.cpp, several prompts": two_answers,
    "llama.cpp, probabilities": three_probabilities,
    "Ollama: Zed, llama-coder, ollama-autocoder and others": ollama_lines,
    "Ollama, raw template of an editor": marker_tokens,
}


def ask(server: RunningServer, case: dict[str, Any]) -> httpx.Response:
    body = case["body"]
    content = None if body is None else json.dumps(body).encode()
    headers = case.get("headers", {}) | ({"Content-Type": "application/json"} if content is not None else {})
    # Not httpx's own: llama.vim's header of an empty key is one that it refuses to send.
    connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
    with closing(connection):
        connection.request(case["method"], case["route"], content, headers)
        answer = connection.getresponse()
        sent = {name: value for name, value in answer.getheaders() if name.lower() != "transfer-encoding"}
        return httpx.Response(answer.status, headers=sent, content=answer.read())


@pytest.mark.parametrize("case", [case for case in CASES if case["client"] in NEEDS], ids=lambda case: case["client"])
def test_it_is_answered_as_it_needs(server: RunningServer, case: dict[str, Any]) -> None:
    answer = ask(server, case)
    assert answer.status_code == 200, answer.text
    NEEDS[case["client"]](objects(answer))


def test_an_adapter_is_refused_by_name(server: RunningServer) -> None:
    (case,) = (case for case in CASES if "lora" in (case["body"] or {}) and case["body"]["lora"])
    answer = ask(server, case)
    assert answer.status_code == 400
    assert "lora" in answer.json()["error"]["message"]


def test_a_ring_is_in_the_cache_some_time_later(server: RunningServer) -> None:
    """What llama.vim sends while nobody types is found by the next completion, however little time it gives."""
    ring = [{"filename": "a.py", "time": [1, 2], "text": "def ring(values):\n    return values\n" * 40}]
    warm = CASES[1]["body"] | {"input_extra": ring, "response_fields": []}
    assert server.post("/infill", warm).json()["tokens_evaluated"] > 256
    again = server.post("/infill", warm).json()
    assert again["tokens_cached"] >= 256


SHAPES = {
    "/api/tags": {"models"},
    "/api/version": {"version"},
    "/v1/health": {"status"},
    "/models": {"object", "data", "models"},
    "/slots": {"id", "n_ctx", "is_processing", "speculative"},
    "/props": {"default_generation_settings", "total_slots", "model_path", "chat_template", "build_info"},
}


@pytest.mark.parametrize("case", [case for case in CASES if "before anything else" in case["client"]], ids=str)
def test_questions_about_the_server(server: RunningServer, case: dict[str, Any]) -> None:
    answer = ask(server, case)
    assert answer.status_code == 200
    found = answer.json()
    assert SHAPES[case["route"]] <= set(found[0] if isinstance(found, list) else found)


def test_a_request_for_the_head_alone(server: RunningServer) -> None:
    (case,) = (case for case in CASES if case["method"] == "HEAD")
    answer = ask(server, case)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "15"


def test_no_line_is_left_out() -> None:
    elsewhere = ("before anything else", "an adapter configured", "wget --spider", "write the scheme small")
    for case in CASES:
        assert case["client"] in NEEDS or any(part in case["client"] for part in elsewhere), case["client"]
