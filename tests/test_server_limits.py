"""What a request may cost: limits on what a body holds, large answers in pieces, and the event loop's own time."""

from __future__ import annotations

import asyncio
import json
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

NEEDED = ("fastapi", "zmq", "httptools")
if any(find_spec(name) is None for name in NEEDED):
    pytest.skip("needs the extra serve", allow_module_level=True)

from starlette.responses import JSONResponse  # noqa: E402

from benchmarks.health_latency import BODIES  # noqa: E402
from pipelines.server.http.api_error import ApiError  # noqa: E402
from pipelines.server.http.json_answer import Rows, json_answer  # noqa: E402
from pipelines.server.http.json_limits import (  # noqa: E402
    MOST_CONTAINERS,
    MOST_FRACTIONS,
    MOST_MEMBERS,
    MOST_VALUES,
    JsonLimits,
)

if TYPE_CHECKING:
    from running_server import RunningServer

HEADERS = {"Content-Type": "application/json"}
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('a"\\,:[]{}é\u2028', max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text('x"\\{', max_size=3), inner, max_size=5),
    max_leaves=30,
)


def structure(value: Any) -> tuple[int, int]:
    """Fields of objects, and lists and objects, in a value."""
    if isinstance(value, dict):
        parts = [structure(part) for part in value.values()]
        return len(value) + sum(part[0] for part in parts), 1 + sum(part[1] for part in parts)
    if isinstance(value, list):
        parts = [structure(part) for part in value]
        return sum(part[0] for part in parts), 1 + sum(part[1] for part in parts)
    return 0, 0


@given(JSONS, st.booleans(), st.integers(1, 5))
def test_only_what_stands_outside_of_strings_counts_wherever_the_pieces_end(
    value: Any, escape: bool, size: int
) -> None:
    body = json.dumps(value, ensure_ascii=escape).encode()
    limits = JsonLimits()
    for start in range(0, len(body), size):
        limits.feed(body[start : start + size])
    assert (limits._members, limits._containers) == structure(value)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b'{"a":[' + b"[]," * MOST_CONTAINERS + b"[]]}", "lists and objects"),
        (b"{" + b'"a":1,' * MOST_MEMBERS + b'"b":2}', "fields of objects"),
        (b"[" + b"1," * (MOST_VALUES + 1) + b"1]", "values"),
        (b"[" + b"1.5e3," * (MOST_FRACTIONS // 2 + 1) + b"1]", "points and exponents"),
        (b"[" + b"9" * 401 + b"]", "too many digits"),
        (('{"a":[' + "[]," * MOST_CONTAINERS + "[]]}").encode("utf-16"), "lists and objects"),
        (('["\u0122",' + "[]," * MOST_CONTAINERS + "[]]").encode("utf-16-le"), "lists and objects"),
    ],
)
def test_a_body_of_too_many_parts_is_refused_while_it_arrives(body: bytes, what: str) -> None:
    with pytest.raises(ApiError, match=what):
        JsonLimits().feed(body)


def test_a_text_of_brackets_is_one_value() -> None:
    limits = JsonLimits()
    limits.feed(json.dumps({"prompt": '[{,:}]\\"' * 400_000}).encode())
    limits.feed(json.dumps({"prompt": "x"}).encode("utf-16"))


@settings(deadline=None, max_examples=60)
@given(JSONS, st.sampled_from((1, 300, 5000)))
def test_a_large_answer_is_the_same_bytes(value: Any, times: int) -> None:
    for whole in ([value] * times, {"a": [value] * times, "b": {"c": [[value] * times, 1], "é": []}}):
        assert asyncio.run(json_answer(whole)).body == JSONResponse(whole).body


@pytest.mark.parametrize("count", [0, 1, 256, 5000])
def test_rows_are_made_while_they_are_written(count: int) -> None:
    whole = [{"id": i, "x": [i]} for i in range(count)]
    found = asyncio.run(json_answer({"rows": Rows(lambda i: {"id": i, "x": [i]}, range(count))}))
    assert found.body == JSONResponse({"rows": whole}).body


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads a thread's time in /proc")
def test_what_costs_most_does_not_cost_the_event_loop(server: RunningServer, name: str) -> None:
    """The loop's own time, whatever else the machine does: while it works on one request it answers no other."""
    pid = server.process.pid

    def spent() -> float:
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9

    path, body = BODIES[name]
    content = json.dumps(body).encode()
    before = spent()
    connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("POST", path, content, HEADERS)
    answer = connection.getresponse()
    answer.read()
    assert answer.status in (200, 400, 413)
    assert spent() - before < 0.5  # 0.33 on a first EPYC; without the limits a second and more on a fast processor


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/tokenize", {"content": "1a" * 600_000}, 413, "content has 1200000 characters and ids; expected at most"),
        ("/tokenize", {"prompt": "1a" * 600_000}, 413, "prompt has 1200000 characters and ids; expected at most"),
        ("/detokenize", {"tokens": [5] * 140_000}, 400, "tokens has 140000 items; expected at most 131072"),
        ("/completion", {"prompt": "x", "stop": ["a" * 2000] * 40}, 400, "stop has 80000 characters in all; expected"),
        ("/v1/completions", {"prompt": "x", "stop": ["a" * 70_000]}, 400, "stop has 70000 characters in all; expected"),
        ("/completion", {"prompt": "x", "logit_bias": [["ab", 1]] * 300}, 400, "expected at most 256 of 4096"),
        ("/completion", {"prompt": "x", "logit_bias": {"1a" * 3000: 1}}, 400, "1 texts of 6000 characters"),
        ("/completion", {"prompt": "x", "logit_bias": {str(i): 1 for i in range(3000)}}, 400, "it has 3000 entries"),
        ("/completion", {"prompt": "x", "response_fields": ["a/" * 200]}, 400, "response_fields"),
        (
            "/completion",
            {"prompt": "x", "n": 8, "n_probs": 1000, "n_predict": 100},
            400,
            "may hold 800800 log-probabilities; expected at most 524288",
        ),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{}] * 9000}]}, 400, "lists and objects"),
        ("/infill", {"input_extra": [{f"k{i}": 1 for i in range(40)}] * 1000}, 400, "too many fields of objects"),
    ],
)
def test_each_limit_is_named(server: RunningServer, path: str, body: Any, status: int, message: str) -> None:
    answer = server.post(path, body)
    assert answer.status_code == status, answer.text[:300]
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize("size", [(4 << 20) + 1, 20 << 20])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_told_so(server: RunningServer, size: int, chunked: bool) -> None:
    """A client that sends all before it reads saw a reset connection instead of the answer."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    content: Any = (b" " * 65_537 for _ in range((size >> 16) + 1)) if chunked else b" " * size
    connection.request("POST", "/v1/completions", content, HEADERS, encode_chunked=chunked)
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["error"]["code"] == "body_too_large"


def test_queries_and_cookies_are_not_taken_to_pieces(server: RunningServer) -> None:
    for path, headers in (("/health?" + "a&" * 30_000, {}), ("/health", {"Cookie": "a;" * 30_000})):
        assert server.get(path, headers=headers).status_code == 200
