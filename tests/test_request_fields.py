"""Every field that a route declares changes its answer, or is refused, or stands here with the reason why neither.

What has no effect is not declared, so that the answer names it among the ignored ones.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("starlette", reason="needs the extra serve")

from benchmarks.fuzz_server import routes
from pipelines.server.routes.ollama.requests import OllamaOptions
from pipelines.server.routes.openai.requests import StreamOptions

if TYPE_CHECKING:
    from running_server import RunningServer

CODE = "values = [1, 2, 2, 2,"
MARKED = "<fim_prefix>x = foo(<fim_suffix>))))))))<fim_middle>"
CHAT = [{"role": "user", "content": CODE}]
SAMPLED: dict[str, Any] = {"max_tokens": 8, "temperature": 1, "seed": 1}
OLLAMA = {"stream": False, "options": {"num_predict": 8, "temperature": 1, "seed": 1}}
BASES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": CODE, **SAMPLED},
    "/v1/chat/completions": {"messages": CHAT, **SAMPLED},
    "/v1/fim/completions": {"prompt": CODE, **SAMPLED},
    "/completion": {"prompt": CODE, **SAMPLED},
    "/infill": {"input_prefix": CODE, **SAMPLED},
    "/api/generate": {"prompt": CODE, **OLLAMA},
    "/api/chat": {"messages": CHAT, **OLLAMA},
    "/tokenize": {"content": "a<|endoftext|>"},
    "/detokenize": {"tokens": [5, 6]},
    "/apply-template": {"messages": CHAT},
    "/api/pull": {"stream": False},
    "/api/show": {},
}
# Only counts the prompt's tokens, whatever else a chat's request states.
COUNTS = "/v1/chat/completions/input_tokens"

# Why a field changes neither text nor answer.
WITHOUT_CHANGE = {
    "model": "the one model answers; --check-model checks it",
    "name": "Ollama's older word for `model`",
    "user": "is written to the log, and keeps users apart with --prefix-cache-scope user",
    "cache_prompt": "what is found in the cache changes no text",
    "cache_salt": "what is found in the cache changes no text",
    "speculative": "guesses are checked and change no text",
    "add_generation_prompt": "a base model has no turns; refused for one with turns",
    "continue_final_message": "a base model has no turns; refused for one with turns",
    "raw": "the model has no template; refused with `system` and `context`, which would have no effect",
}

LINES = {"text": "import os\n", "temperature": 0, "max_tokens": 24}
NEWLINES = {"logit_bias": [["\n", 100]], "max_tokens": 24}
CLOSING = {"logit_bias": [[")", 100]]}
GREEDY = {"temperature": 0, "text": "x = 1\n" * 12, "max_tokens": 24, "ignore_eos": True}
STREAM = {"stream": True}
# What a field is set to, beside what else it needs so that this shows.
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "prompt": ("y", {}), "messages": ([{"role": "user", "content": "y"}], {}), "input_prefix": ("y", {}),
    "suffix": (")\n", {}), "input_suffix": (")\n", {}), "input_extra": ([{"text": "import os\n"}], {}),
    "content": ("b", {}), "tokens": ([5, 7], {}), "system": ("y", {}), "context": ([5, 6], {}),
    "options": ({"seed": 2}, {}),
    "max_tokens": (2, {}), "max_completion_tokens": (2, {}), "n_predict": (2, {}), "num_predict": (2, {}),
    "temperature": (0, {}), "top_p": (0.0, {}), "top_k": (1, {}), "min_p": (1, {}), "seed": (2, {}),
    "random_seed": (2, {"seed": None, "random_seed": 1}),
    "repetition_penalty": (9, GREEDY), "repeat_penalty": (9, GREEDY),
    "presence_penalty": (2, GREEDY), "frequency_penalty": (2, GREEDY),
    "repeat_last_n": (0, GREEDY | {"repeat_penalty": 9}), "penalty_last_n": (0, GREEDY | {"repeat_penalty": 9}),
    "logit_bias": ([["\n", 100]], {}), "samplers": (["temperature"], {"top_k": 1}),
    "ignore_eos": (True, {"logit_bias": {"0": 100}}), "n": (2, {}), "n_cmpl": (2, {}), "best_of": (4, {}),
    "stop": (["\n"], LINES), "completion": ("line", LINES), "strip": (True, NEWLINES),
    "n_indent": (9, LINES), "t_max_predict_ms": (1, NEWLINES),
    "token_healing": (True, {"text": "import nump"}), "gap_markers": (False, {"text": MARKED}),
    "cut_suffix": (False, {"text": MARKED, **CLOSING}),
    "stream": (True, {}), "stream_options": ({"include_usage": True}, {}), "include_usage": (True, STREAM),
    "continuous_usage_stats": (True, STREAM), "include_obfuscation": (True, STREAM),
    "timings_per_token": (True, STREAM), "response_fields": (["content"], {}), "return_tokens": (True, {}),
    "return_token_ids": (True, {}), "return_tokens_as_token_ids": (True, {"logprobs": 1}),
    "response_format": ({"type": "json_object"}, {}), "echo": (True, {}), "logprobs": (True, {}),
    "top_logprobs": (3, {"logprobs": True}), "n_probs": (2, {}), "keep_alive": (0, {"prompt": ""}),
    "return_token_strs": (True, {"content": None, "prompt": "a"}), "parse_special": (False, {}),
    "with_pieces": (True, {}), "truncate": (False, {"text": "x = 1\n" * 500}),
}  # fmt: skip
# Where the way to the same differs from the other routes.
HEALED = False, {"text": "import nump"}
OF_ROUTES: dict[tuple[str, str], tuple[Any, dict[str, Any]]] = {
    ("/api/generate", "token_healing"): HEALED,
    ("/v1/fim/completions", "token_healing"): HEALED,
    ("/infill", "token_healing"): HEALED,
    ("/v1/fim/completions", "cut_suffix"): (False, {"text": "x = foo(", "suffix": "))))))))", **CLOSING}),
    ("/infill", "cut_suffix"): (False, {"text": "x = foo(", "input_suffix": "))))))))", **CLOSING}),
    ("/api/chat", "keep_alive"): (0, {"messages": []}),
    ("/infill", "prompt"): ("y", {}),
    ("/tokenize", "prompt"): ("y", {"content": None, "prompt": "x"}),
    ("/tokenize", "messages"): ([{"role": "user", "content": "y"}], {"content": None, "messages": CHAT}),
    ("/v1/chat/completions", "return_tokens_as_token_ids"): (True, {"logprobs": True}),
    ("/v1/completions", "logprobs"): (1, {}),
}
# Differs between equal requests; settings are only told again.
VOLATILE = re.compile(
    r'"(id|created|created_at|cached_tokens|tokens_cached|cache_n|\w+_(duration|ms|second|n))": ("[^"]*"|[0-9.e-]+)'
)


def declared(url: str) -> dict[str, list[str]]:
    """The fields of each route that takes JSON, as its OpenAPI document has them, and those of objects in them."""
    found = {}
    for route in routes(httpx.get(f"{url}/openapi.json", timeout=60).json()):
        names = [*route.fields]
        if "stream_options" in names:
            names += [*StreamOptions.model_fields]
        if "options" in names:
            names += [*OllamaOptions.model_fields]
        found[route.path] = names
    return found


def placed(route: str, name: str, value: Any) -> dict[str, Any]:
    """A field as this route has it: `text` is its prompt, samplers of Ollama's stand in an object."""
    if name == "text":
        if "chat" in route:
            return {"messages": [{"role": "user", "content": value}]}
        return {"input_prefix" if route == "/infill" else "prompt": value}
    if route in ("/api/generate", "/api/chat") and name in ("max_tokens", *OllamaOptions.model_fields):
        return {"options": {"num_predict" if name == "max_tokens" else name: value}}
    return {"stream_options": {name: value}} if name in StreamOptions.model_fields else {name: value}


def merged(route: str, body: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """A request with more fields; `null` is the same as none."""
    for name, value in more.items():
        for key, part in placed(route, name, value).items():
            body = body | {key: body[key] | part if isinstance(part, dict) and key in body else part}
    return body


def answer(client: httpx.Client, route: str, body: str) -> tuple[int, str, list[str]]:
    """Status, text without what differs between equal requests, and the ignored fields."""
    found = client.post(route, content=body, headers={"Content-Type": "application/json"})
    kind = found.headers["content-type"]
    lines = found.text.replace("data: ", "").replace("[DONE]", "").splitlines()
    told = [json.loads(line) for line in lines if line]
    for one in told:
        for part in one if isinstance(one, list) else [one]:
            part.pop("generation_settings", None)
    ignored = found.headers.get("x-ignored-fields", "").split(", ")
    return found.status_code, kind + VOLATILE.sub("", json.dumps(told)), ignored


def test_every_declared_field_does_something(server: RunningServer) -> None:
    found = declared(server.url)
    assert set(found) == {*BASES, COUNTS}

    def idle(field: tuple[str, str]) -> str:
        """What is wrong with a field, if anything."""
        route, name = field
        value, context = OF_ROUTES.get(field, CHANGES.get(name, (None, {})))
        before = merged(route, BASES[route], context)
        plain, changed = (ask(route, json.dumps(body)) for body in (before, merged(route, before, {name: value})))
        right = plain[0] == 200 and changed[0] in (200, 400) and changed[1] != plain[1] and name not in changed[2]
        return "" if right else f"{route} {name}: {plain[:2]} then {changed}"

    fields = [(route, name) for route in BASES for name in found[route] if name not in WITHOUT_CHANGE]
    with httpx.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor(8) as pool:
        ask = cache(partial(answer, client))  # most fields are compared with the same request
        wrong = [told for told in pool.map(idle, fields) if told]
    assert not wrong, "\n".join(wrong)


def test_reasons_are_of_fields_that_there_are(server: RunningServer) -> None:
    names = {name for fields in declared(server.url).values() for name in fields}
    assert {*WITHOUT_CHANGE} <= names
    assert {*CHANGES} <= names
