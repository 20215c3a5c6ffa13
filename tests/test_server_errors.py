"""Bad input over real sockets: a 4xx in OpenAI's shape that names the field, and a server that goes on."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from running_server import RunningServer

COMPLETIONS = "/v1/completions"
SHORT: dict[str, Any] = {"prompt": "x", "max_tokens": 1}
HUGE = 10**350  # no float

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": ""}, "prompt", "the prompt is empty"),
    ({"prompt": []}, "prompt", "the prompt is empty"),
    ({"prompt": ["x", ""]}, "prompt", "the prompt is empty"),
    ({"prompt": [[1, 2], []]}, "prompt", "the prompt is empty"),
    ({"prompt": None}, "prompt", "field required"),
    ({"prompt": {"text": "x"}}, "prompt", "expected text, a list of texts, token ids"),
    ({"prompt": ["x", 3]}, "prompt", "expected text, a list of texts, token ids"),
    ({"prompt": [1, True]}, "prompt", "expected text, a list of texts, token ids"),
    ({"prompt": [8192]}, "prompt", "token id 8192 is not in the vocabulary; expected 0 to 8191"),
    ({"prompt": [-1]}, "prompt", "greater than or equal to 0"),
    ({"prompt": [10**30]}, "prompt", "less than or equal to"),
    ({"prompt": "x\ud800"}, "prompt", "lone surrogate"),
    ({}, "prompt", "field required"),
    ({"prompt": "x", "max_tokens": -2}, "max_tokens", "greater than or equal to -1 (found -2)"),
    ({"prompt": "x", "max_tokens": 1.5}, "max_tokens", "valid integer"),
    ({"prompt": "x", "max_tokens": "5"}, "max_tokens", "valid integer"),
    ({"prompt": "x", "max_tokens": 10**20}, "max_tokens", "less than or equal to"),
    ({"prompt": "x", "temperature": -0.1}, "temperature", "greater than or equal to 0"),
    ({"prompt": "x", "temperature": 1e300}, "temperature", "less than or equal to 2"),
    ({"prompt": "x", "temperature": "hot"}, "temperature", "valid number"),
    ({"prompt": "x", "top_p": -0.1}, "top_p", "greater than or equal to 0"),
    ({"prompt": "x", "top_k": -2}, "top_k", "greater than or equal to -1"),
    ({"prompt": "x", "min_p": 2}, "min_p", "less than or equal to 1"),
    ({"prompt": "x", "repetition_penalty": 0}, "repetition_penalty", "greater than 0"),
    ({"prompt": "x", "n": 0}, "n", "greater than or equal to 1"),
    ({"prompt": "x", "n": 129}, "n", "less than or equal to 128"),
    ({"prompt": "x", "n": 128}, "", "expected at most 32"),
    ({"prompt": "x", "n": 3, "best_of": 2}, "best_of", "expected at least n, which is 3"),
    ({"prompt": "x", "best_of": 2, "stream": True}, "best_of", "cannot be streamed"),
    ({"prompt": "x", "logprobs": 21}, "logprobs", "less than or equal to 20"),
    ({"prompt": "x", "stop": 5}, "stop", "stop: input should be a valid string"),
    ({"prompt": "x", "prompt_logprobs": 0}, "prompt_logprobs", "would change the answer, and is not done here"),
    ({"prompt": "x", "stop": ["a"] * 1025}, "stop", "at most 1024"),
    ({"prompt": "x", "seed": 1.5}, "seed", "valid integer"),
    ({"prompt": "x", "stream": "yes"}, "stream", "valid boolean"),
    ({"prompt": "x", "stream_options": {"include_usage": True}}, "stream_options", "set stream too"),
    ({"prompt": "x", "presence_penalty": 2.5}, "presence_penalty", "less than or equal to 2"),
    ({"prompt": "x", "frequency_penalty": -2.5}, "frequency_penalty", "greater than or equal to -2"),
    ({"prompt": "x", "logit_bias": {"8192": 1}}, "logit_bias", "token id 8192 is not in the vocabulary"),
    ({"prompt": "x", "logit_bias": [[5, True]]}, "logit_bias", "'5' has no number"),
    ({"prompt": "x", "logit_bias": {"-5": 1}}, "logit_bias", "token id -5 is not in the vocabulary"),
    ({"prompt": "x", "logit_bias": [[-5, 1]]}, "logit_bias", "greater than or equal to 0 (found -5)"),
    ({"prompt": "x", "logit_bias": [[5, HUGE]]}, "logit_bias", "logit_bias.0.1: input should be a valid number"),
    ({"prompt": "x", "logit_bias": {"5": HUGE}}, "logit_bias", "logit_bias.5: input should be a valid number"),
    ({"prompt": "x", "logit_bias": [["a\ud800b", False]]}, "logit_bias", "lone surrogate at position 1"),
    ({"prompt": "x", "logit_bias": {"\ud800": 1}}, "logit_bias", "lone surrogate at position 0"),
    ({"prompt": "x", "logit_bias": [[5.5, 1]]}, "logit_bias", "found 5.5; expected token ids or texts"),
    ({"prompt": "x", "logit_bias": 5}, "logit_bias", "expected an object of biases by token"),
    ({"prompt": "x", "temperature": HUGE}, "temperature", "temperature: input should be a valid number"),
    ({"prompt": "x", "guided_json": {}}, "guided_json", "would change the answer, and is not done here"),
    ({"prompt": "x", "prompt_embeds": "AAAA"}, "prompt_embeds", "would change the answer"),
    ({"prompt": "x", "mirostat": 2}, "mirostat", "would change the answer"),
    ({"prompt": "x", "stop_token_ids": [5]}, "stop_token_ids", "would change the answer"),
    ({"prompt": "x", "response_format": {"type": "json_object"}}, "response_format", "'text'"),
    ({"prompt": "x", "suffix": "y", "echo": True}, "echo", "no meaning with a suffix"),
]


def check_error(response: Any, status: int, param: str | None, message: str) -> None:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert message in error["message"]
    assert "--prompt" not in error["message"]  # a hint for the command line
    assert (response.status_code, error["param"]) == (status, param)


@pytest.mark.parametrize(("body", "param", "message"), BAD, ids=lambda value: str(value)[:40])
def test_bad_completions(server: RunningServer, body: dict[str, Any], param: str, message: str) -> None:
    content = json.dumps(body).encode()
    response = server.post(COMPLETIONS, content)
    check_error(response, 400, param or None, message)


@pytest.mark.parametrize(
    ("content", "param", "message"),
    [
        (b"{", None, "not valid JSON"),
        (b"", None, "it is empty, or null; expected a JSON object"),
        (b"null", None, "it is empty, or null; expected a JSON object"),
        (b"[]", None, "the body is not as expected: expected a JSON object"),
        (b'"x"', None, "expected a JSON object"),
        (b"\xff\xfe", None, "not valid JSON"),
        (b'{"prompt": "x", "temperature": NaN}', "temperature", "finite number"),
        (b'{"prompt": "x", "temperature": Infinity}', "temperature", "finite number"),
        (b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}", None, ""),
    ],
    ids=["cut off", "empty", "null", "list", "string", "binary", "nan", "infinity", "deep"],
)
def test_bad_json(server: RunningServer, content: bytes, param: str | None, message: str) -> None:
    response = server.post(COMPLETIONS, content)
    assert 400 <= response.status_code < 500, response.text
    if message:
        check_error(response, 400, param, message)


def test_a_prompt_over_the_limit_names_both_numbers(server: RunningServer) -> None:
    check_error(server.post(COMPLETIONS, {"prompt": [5] * 1024}), 400, "prompt", "1024 tokens; expected at most 1023")
    check_error(server.post(COMPLETIONS, {"prompt": [5] * 1025, "max_tokens": 0}), 400, "prompt", "at most 1024")
    assert server.post(COMPLETIONS, {"prompt": [5] * 1024, "max_tokens": 0}).status_code == 200
    chat = {"messages": [{"role": "user", "content": "x " * 3000}]}
    check_error(server.post("/v1/chat/completions", chat), 400, "messages", "expected at most 1023")


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages", "the messages are empty"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages", "'system'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", ""),
        ({"messages": [{"role": "user", "content": "x"}], "tools": [{}]}, "tools", "would change the answer"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [{}]}]}, "messages.tool_calls", "would change"),
        ({"messages": [{"role": "user", "content": "x"}], "tool_choice": "required"}, "tool_choice", "would change"),
        (
            {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema"}},
            "response_format",
            "'text'",
        ),
        ({"messages": [{"role": "user", "content": "x"}], "top_logprobs": 2}, "top_logprobs", "needs logprobs"),
    ],
)
def test_bad_chats(server: RunningServer, body: dict[str, Any], param: str, message: str) -> None:
    check_error(server.post("/v1/chat/completions", body), 400, param, message)


def test_tools_that_may_not_be_called_change_nothing(server: RunningServer) -> None:
    chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    offered = {"tools": [{"type": "function"}], "tool_choice": "none"}
    assert server.post("/v1/chat/completions", chat | offered).status_code == 200


def test_unknown_routes_and_methods(server: RunningServer) -> None:
    check_error(server.get("/v1/nothing"), 404, None, "there is no route /v1/nothing")
    check_error(server.get(COMPLETIONS), 405, None, "Method Not Allowed")


def test_a_body_that_is_too_large(server: RunningServer) -> None:
    big = b'{"prompt": "' + b"x" * (5 << 20) + b'"}'
    response = server.post(COMPLETIONS, big)
    check_error(response, 413, None, "expected at most 4194304 bytes")

    def chunks() -> Any:
        yield from (big[i : i + 65536] for i in range(0, len(big), 65536))

    import httpx

    headers = {"Content-Type": "application/json"}
    answer = httpx.post(server.url + COMPLETIONS, content=chunks(), headers=headers, timeout=30)  # no length stated
    check_error(answer, 413, None, "expected at most 4194304 bytes")


def test_slow_clients_hold_up_nobody(server: RunningServer) -> None:
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    try:
        for connection in slow:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-")
        start = time.monotonic()
        assert server.post(COMPLETIONS, {"prompt": "x", "max_tokens": 1}).status_code == 200
        assert time.monotonic() - start < 5
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.slow
def test_slow_clients_are_sent_away(server: RunningServer) -> None:
    """A head that does not come is closed after 20 s, a body that does not come is 408 after 30 s."""
    start = time.monotonic()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.settimeout(60)
        slow.sendall(head)
        assert slow.recv(100) == b""
        assert 15 < time.monotonic() - start < 30
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.settimeout(60)
        slow.sendall(head + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
        assert 25 < time.monotonic() - start < 45


def test_the_server_is_unharmed(server: RunningServer) -> None:
    assert server.get("/health").json() == {"status": "ok"}
    answer = server.post(COMPLETIONS, {"prompt": "def f(", "max_tokens": 4, "temperature": 0})
    assert answer.json()["usage"]["completion_tokens"] == 4
    assert "Traceback" not in server.log


def ignored(server: RunningServer, body: dict[str, Any], route: str = COMPLETIONS) -> list[str]:
    answer = server.post(route, SHORT | body)
    assert answer.status_code == 200, answer.text
    header = answer.headers.get("x-ignored-fields")
    return header.split(", ") if header else []


def test_unknown_fields_are_ignored_and_named(server: RunningServer) -> None:
    body = {"frobnicate": 1, "stream": True, "stream_options": {"speed": 2, "include_usage": True}}
    assert ignored(server, body) == ["frobnicate", "stream_options.speed"]
    for _ in range(2):
        assert ignored(server, {"frobnicate": 2}) == ["frobnicate"]
    assert server.log.count("field=frobnicate") == 1
    assert ignored(server, {"n_predict": 1, "samplers": ["dry"], "keep_alive": "5m"}) == ["keep_alive"]


@pytest.mark.parametrize(
    ("route", "body", "names"),
    [
        (COMPLETIONS, {"return_tokens": True, "response_fields": ["content"]}, ["response_fields", "return_tokens"]),
        ("/v1/fim/completions", {"gap_markers": False, "logprobs": 1}, ["gap_markers", "logprobs"]),
        ("/completion", {"stream_options": {"include_usage": True}}, ["stream_options"]),
        ("/infill", {"gap_markers": False}, ["gap_markers"]),
        ("/api/generate", {"stream": False, "top_logprobs": 5}, ["top_logprobs"]),
        ("/api/generate", {"stream": False, "options": {"ignore_eos": True}}, ["options.ignore_eos"]),
        ("/tokenize", {"with_pieces": True}, ["with_pieces"]),
        ("/tokenize", {"content": "y", "return_token_strs": True}, ["prompt", "return_token_strs"]),
        ("/tokenize", {"messages": [{"role": "user", "content": "y"}]}, ["messages"]),
    ],
)
def test_what_has_no_effect_there_is_named(
    server: RunningServer, route: str, body: dict[str, Any], names: list[str]
) -> None:
    unknown = {"max_tokens"} if route.startswith(("/api/", "/tokenize")) else set()
    assert [name for name in ignored(server, body, route) if name not in unknown] == names


def test_their_names_are_bounded_and_escaped(server: RunningServer) -> None:
    odd = {"a\r\nX-Evil: 1": 1, "é\ud800,": 2, "x" * 100_000: 3}
    answer = server.post(COMPLETIONS, json.dumps(SHORT | odd).encode())
    names = answer.headers["x-ignored-fields"].split(", ")
    assert names[0] == "a\\r\\nX-Evil: 1"
    assert names[1] == "x" * 60 + "..."
    assert names[2] == "\\xe9?\\x2c"
    assert ignored(server, {f"name{i}": i for i in range(500)})[-1].endswith(" and 480 more")
    assert server.log.count("field ignored") <= 200


@pytest.mark.parametrize(
    "body",
    [
        {"typical_p": 1, "xtc_probability": 0, "dry_multiplier": 0.0, "mirostat": 0, "n_keep": 0, "lora": []},
        {"lora": [{"id": 0, "scale": 0.0}], "image_data": [], "skip_special_tokens": True, "store": False},
        {"tool_choice": "none", "tools": [], "min_tokens": 0, "stop_token_ids": [], "grammar": "", "tfs_z": 1.0},
        {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "response_format": {"type": "text"}},
        dict.fromkeys(("temperature", "top_p", "stop", "seed", "stream", "grammar", "guided_json", "n")),
        {"stop": ["", ""], "chat_template_kwargs": {"enable_thinking": False}, "allowed_token_ids": []},
        {"max_tokens": 1.0, "n": 1.0, "seed": 5.0, "top_p": 0, "model": "whatever"},
        {"guided_decoding_backend": "auto", "guided_whitespace_pattern": " "},  # of what is not asked for
        {"ignore_eos": True, "min_tokens": 9, "max_tokens": 2, "stop": None},  # genai-perf, aiperf
    ],
)
@pytest.mark.parametrize("route", [COMPLETIONS, "/completion", "/infill", "/v1/chat/completions"])
def test_neutral_values_are_no_news(server: RunningServer, body: dict[str, Any], route: str) -> None:
    more = {"messages": [{"role": "user", "content": "x"}]} if "chat" in route else {}
    if "chat" in route:
        answer = server.post(route, {"max_tokens": 1} | more | body)
        assert answer.status_code == 200, answer.text
        assert "x-ignored-fields" not in answer.headers
    else:
        assert ignored(server, {"n_predict": 1} | body, route) == []
