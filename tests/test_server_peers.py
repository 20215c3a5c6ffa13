"""What clients of llama.cpp's, vLLM's and Ollama's servers look at beside the text, as those servers tell it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from running_server import RunningServer

    from pipelines.pipeline import Pipeline

SHORT: dict[str, Any] = {"prompt": "def f(", "max_tokens": 6, "temperature": 0}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "def f("}], "max_tokens": 6, "temperature": 0}


@pytest.mark.parametrize(("route", "body"), [("/v1/completions", SHORT), ("/v1/chat/completions", CHAT)])
def test_the_fingerprint_is_of_the_model(server: RunningServer, route: str, body: dict[str, Any]) -> None:
    whole = server.post(route, body).json()["system_fingerprint"]
    assert whole.startswith("b")
    assert {event["system_fingerprint"] for event in server.events(route, body)} == {whole}


def test_a_prompt_that_is_too_long_says_by_how_much(server: RunningServer) -> None:
    for route, prompt in (("/completion", "x = 1\n" * 2000), ("/completions", [5] * 1024)):
        error = server.post(route, {"prompt": prompt}).json()["error"]
        assert (error["n_ctx"], error["n_prompt_tokens"] >= 1024) == (1024, True)
        assert error["type"] == "exceed_context_size_error"


def test_ids_of_prompt_and_text(server: RunningServer, nano: Pipeline) -> None:
    """vLLM's `return_token_ids` and `return_tokens_as_token_ids`, whole and streamed."""
    wanted = {"return_token_ids": True, "return_tokens_as_token_ids": True, "logprobs": 1}
    choice = server.post("/v1/completions", SHORT | wanted).json()["choices"][0]
    assert choice["prompt_token_ids"] == nano.encode("def f(")
    assert nano.tokenizer.decode(choice["token_ids"]) == choice["text"]
    assert choice["logprobs"]["tokens"] == [f"token_id:{token}" for token in choice["token_ids"]]
    assert set(choice["logprobs"]["top_logprobs"][0]) == {choice["logprobs"]["tokens"][0]}
    events = [event["choices"][0] for event in server.events("/v1/completions", SHORT | wanted)]
    assert [token for event in events for token in event["token_ids"]] == choice["token_ids"]
    assert next(event.get("prompt_token_ids") for event in events) == choice["prompt_token_ids"]
    assert not any("prompt_token_ids" in event for event in events[1:])


def test_ids_of_a_chat(server: RunningServer, nano: Pipeline) -> None:
    answer = server.post("/v1/chat/completions", CHAT | {"return_token_ids": True}).json()
    assert answer["prompt_token_ids"] == nano.encode("def f(")
    first, *rest = server.events("/v1/chat/completions", CHAT | {"return_token_ids": True})
    assert first["prompt_token_ids"] == answer["prompt_token_ids"]
    found = [token for event in (first, *rest) for token in event["choices"][0].get("token_ids", [])]
    assert found == answer["choices"][0]["token_ids"]
    assert "prompt_token_ids" not in server.post("/v1/chat/completions", CHAT).json()


def test_a_stream_of_llama_cpps_holds_the_ids(server: RunningServer) -> None:
    body = {"prompt": "def f(", "n_predict": 6, "temperature": 0}
    *pieces, last = server.events("/completion", body)
    whole = server.post("/completion", body | {"return_tokens": True}).json()
    assert [token for piece in pieces for token in piece["tokens"]] == whole["tokens"]
    assert last["tokens"] == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, [False, False]), ({"include_usage": False}, [False, False]), ({"include_usage": True}, [False, True]),
        ({"continuous_usage_stats": True}, [True, True]),
        ({"include_usage": True, "continuous_usage_stats": True}, [True, True]),
        ({"include_usage": False, "continuous_usage_stats": True}, [False, False]),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("route", "body"), [("/v1/completions", SHORT), ("/v1/chat/completions", CHAT)])
def test_usage_in_a_stream(
    server: RunningServer, route: str, body: dict[str, Any], options: dict[str, bool], told: list[bool]
) -> None:
    events = server.events(route, body | {"stream_options": options})
    assert [bool(events[0].get("usage")), bool(events[-1].get("usage"))] == told
    assert (events[-1]["choices"] == []) is told[1]


def test_settings_name_all_that_llama_cpps_do(server: RunningServer, nano: Pipeline) -> None:
    ignoring = server.post("/completion", {"prompt": "x", "n_predict": 1, "ignore_eos": True}).json()
    plain = server.post("/completion", {"prompt": "x", "n_predict": 1}).json()
    settings = plain["generation_settings"]
    assert {"adaptive_target", "adaptive_decay", "reasoning_format", "backend_sampling"} <= set(settings)
    assert settings["logit_bias"] == []
    unwanted = [{"bias": None, "token": nano.tokenizer.eos_token_id}]
    assert ignoring["generation_settings"]["logit_bias"] == unwanted
    defaults = server.get("/props").json()["default_generation_settings"]["params"]
    assert set(defaults) == set(settings)
    assert (defaults["seed"], defaults["temperature"], defaults["n_predict"]) == (2**32 - 1, 0.8, -1)


@pytest.mark.parametrize("extra", [{}, {"filename": "a.py"}, {"filename": 5, "text": "x"}, {"text": 5}, {"text": None}])
def test_text_of_another_file_is_text(server: RunningServer, extra: dict[str, Any]) -> None:
    answer = server.post("/infill", {"input_prefix": "x", "input_suffix": "", "input_extra": [extra], "n_predict": 1})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input_extra"
    fine = {"input_prefix": "x", "input_suffix": "", "input_extra": [{"text": "y = 1"}], "n_predict": 1}
    assert server.post("/infill", fine).status_code == 200


def test_counting_a_chats_tokens(server: RunningServer, nano: Pipeline) -> None:
    for route in ("/chat/completions/input_tokens", "/v1/chat/completions/input_tokens"):
        assert server.post(route, CHAT).json() == {"input_tokens": len(nano.encode("def f("))}


def test_vllms_tokenizer_takes_chats_and_tells_texts(server: RunningServer, nano: Pipeline) -> None:
    body = {"messages": CHAT["messages"], "add_generation_prompt": False, "return_token_strs": True}
    told = server.post("/tokenize", body).json()
    assert told["tokens"] == nano.encode("def f(")
    assert "".join(told["token_strs"]) == "def f("
    assert server.post("/tokenize", {"prompt": "x"}).json()["token_strs"] is None
    assert server.post("/tokenize", {"content": [99999999]}).status_code == 400


def test_load_models_and_adapters(server: RunningServer) -> None:
    server.wait_idle()
    assert server.get("/load").json() == {"server_load": 0}
    assert server.get("/lora-adapters").json() == []
    (model,) = server.get("/v1/models").json()["data"]
    assert (model["root"], model["aliases"], model["tags"]) == ("nano", ["nano"], [])
    assert model["meta"]["n_ctx"] == 1024


def test_a_base_model_goes_on_after_the_last_message(server: RunningServer) -> None:
    plain = server.post("/v1/chat/completions", CHAT).json()["choices"][0]["message"]
    more = {"add_generation_prompt": False, "continue_final_message": True}
    assert server.post("/v1/chat/completions", CHAT | more).json()["choices"][0]["message"] == plain
    two = server.post("/v1/chat/completions", CHAT | {"n_cmpl": 2}).json()
    assert [choice["index"] for choice in two["choices"]] == [0, 1]


def test_parts_of_a_message_are_not_run_together(server: RunningServer) -> None:
    parts = [{"type": "text", "text": "import os"}, {"type": "text", "text": "x = 1"}]
    made = server.post("/apply-template", {"messages": [{"role": "user", "content": parts}]}).json()
    assert made["prompt"] == "import os\nx = 1"


def test_ollamas_clients_pull_what_is_there(server: RunningServer) -> None:
    assert server.post("/api/pull", {"name": "codellama:7b-code", "stream": False}).json() == {"status": "success"}
    lines = server.post("/api/pull", {"model": "nano"}).text.splitlines()
    assert [json.loads(line) for line in lines] == [{"status": "success"}]
    shown = server.post("/api/show", {"name": "nano"}).json()
    assert shown["model_info"]["general.basename"] == "nano"  # the name in Copilot's list
    assert ".Suffix" in shown["template"]  # by which Continue sees that it can send one


def test_flags_where_other_servers_take_them(server: RunningServer) -> None:
    tops = server.post("/v1/completions", SHORT | {"logprobs": True}).json()["choices"][0]["logprobs"]["top_logprobs"]
    assert all(len(top) in (1, 2) for top in tops)
    answer = server.post("/completion", {"prompt": "x", "n_predict": 1, "speculative": {"n_max": 3}})
    assert answer.status_code == 200
