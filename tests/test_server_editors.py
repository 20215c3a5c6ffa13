"""Requests as editors send them: llama.vim, llama.vscode, Continue, Tabby; and the FIM prompt they lead to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pipelines.pipeline import Pipeline
from pipelines.prompts.fim import fim_prompt

if TYPE_CHECKING:
    from running_server import RunningServer

LLAMA_VIM: dict[str, Any] = {
    "id_slot": 0,
    "input_prefix": "import os\n\n",
    "input_suffix": "\n    return total\n",
    "input_extra": [{"filename": "other.py", "text": "def other():\n    pass\n"}],
    "prompt": "def add(a, b):",
    "n_predict": 24,
    "stop": [],
    "n_indent": 0,
    "top_k": 40,
    "top_p": 0.9,
    "samplers": ["top_k", "top_p", "infill"],
    "stream": False,
    "cache_prompt": True,
    "t_max_prompt_ms": 60000,
    "t_max_predict_ms": 60000,
    "response_fields": ["content", "timings/prompt_n", "timings/predicted_n", "truncated", "tokens_cached"],
}


def test_llama_vim(server: RunningServer) -> None:
    answers = []
    for seed in range(6):  # the first token that is drawn may be the end
        headers = {"Authorization": "Bearer none"}
        answers.append(server.post("/infill", LLAMA_VIM | {"seed": seed}, headers=headers).json())
    for answer in answers:
        assert set(answer) == set(LLAMA_VIM["response_fields"])
        assert answer["truncated"] is False
    assert answers[0]["timings/prompt_n"] > 20
    assert 0 < max(answer["timings/predicted_n"] for answer in answers) <= 24


def test_llama_vim_warms_the_cache(server: RunningServer) -> None:
    body = LLAMA_VIM | {"input_prefix": "# warm\n" + "x = [1, 2]\n" * 60, "input_extra": []}
    warm = server.post("/infill", body | {"n_predict": 0, "samplers": [], "t_max_prompt_ms": 60000}).json()
    assert warm["content"] == ""
    again = server.post("/infill", body).json()
    assert again["tokens_cached"] >= 128


def test_infill_is_the_models_own_template(server: RunningServer, nano: Pipeline) -> None:
    fim = nano.tokenizer.fim
    assert fim is not None
    encode = nano.tokenizer.encode
    assert fim.suffix_first
    assert nano.tokenizer.eos_token_id is not None
    opening = [nano.tokenizer.eos_token_id, fim.suffix]
    ids = [*opening, *encode("\nprint(b)\n"), fim.prefix, *encode("a = 1\n"), fim.middle, *encode("b =")]
    expected = nano.generate(ids, max_new_tokens=16).text
    body = {"input_prefix": "a = 1\n", "input_suffix": "\nprint(b)\n", "prompt": "b =", "n_predict": 16}
    body |= {"token_healing": False}
    answer = server.post("/infill", body | {"temperature": 0, "return_tokens": True}).json()
    assert answer["content"] == expected
    assert answer["tokens_evaluated"] == len(ids)
    assert len(answer["tokens"]) == answer["tokens_predicted"]
    assert answer["stop_type"] in ("eos", "limit")


def test_a_markers_spelling_in_code_is_text(server: RunningServer) -> None:
    plain = {"input_prefix": "x = '", "input_suffix": "'", "n_predict": 0}
    marked = plain | {"input_prefix": "x = '<fim_middle>"}
    counts = [server.post("/infill", body).json()["tokens_evaluated"] for body in (plain, marked)]
    assert counts[1] > counts[0] + 1


def test_time_for_the_prompt_does_not_empty_an_answer(server: RunningServer) -> None:
    """llama.cpp does not implement it, and editors send half a second by default."""
    body = LLAMA_VIM | {"input_prefix": "y = 2\n" * 250, "temperature": 0, "samplers": ["temperature"]}
    body |= {"ignore_eos": True}
    texts = [server.post("/infill", body | {"t_max_prompt_ms": limit}).json()["content"] for limit in (0, 60000)]
    assert texts[0] == texts[1] != ""


def test_llama_vscode_asks_about_the_server(server: RunningServer) -> None:
    assert server.get("/props").json()["default_generation_settings"]["n_ctx"] == 1024
    ids = server.post("/tokenize", {"content": "def f(é"}).json()["tokens"]
    assert server.post("/detokenize", {"tokens": ids}).json()["content"] == "def f(é"
    pieces = server.post("/tokenize", {"content": "def f(", "with_pieces": True}).json()["tokens"]
    assert "".join(piece["piece"] for piece in pieces) == "def f("


def test_continue_streams_completion(server: RunningServer, nano: Pipeline) -> None:
    body = {
        "prompt": "def fibonacci(n):", "n_predict": 24, "stop": ["\n\n\n"], "top_k": 1, "top_p": 1, "min_p": 0,
        "temperature": 0.01, "mirostat": 0,
    }  # fmt: skip
    events = server.events("/completion", body)
    expected = nano.generate("def fibonacci(n):", max_new_tokens=24, stop="\n\n\n").text
    assert "".join(event["content"] for event in events) == expected
    assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]


def test_tabby_sends_a_suffix(server: RunningServer) -> None:
    body = {
        "model": "nano", "prompt": "def add(a, b):\n    ", "suffix": "\n", "max_tokens": 8, "temperature": 0.1,
        "stream": True, "presence_penalty": 0.0, "user": "tabby",
    }  # fmt: skip
    events = server.events("/v1/completions", body)
    assert events[-1]["choices"][0]["finish_reason"] in ("stop", "length")
    server.wait_for_log("user=tabby")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"mirostat": 2}, "mirostat with this value would change the answer"),
        ({"grammar": "root ::= x"}, "grammar with this value would change the answer"),
        ({"xtc_probability": 0.5}, "xtc_probability with this value"),
        ({"dry_multiplier": 1}, "dry_multiplier with this value"),
        ({"lora": [{"id": 0, "scale": 0.5}]}, "lora with this value"),
    ],
)
def test_what_is_not_honoured_is_refused(server: RunningServer, body: dict[str, Any], message: str) -> None:
    answer = server.post("/infill", {"input_prefix": "x"} | body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_a_long_file_leaves_room_for_the_answer(server: RunningServer, nano: Pipeline) -> None:
    prompt = fim_prompt(nano.tokenizer, "a = 1\n" * 2000, "b = 2\n" * 2000, 512)
    assert prompt.truncated
    assert 360 < len(prompt.ids) <= 512
    body = {"input_prefix": "a = 1\n" * 2000, "input_suffix": "b = 2\n" * 2000, "n_predict": 8}
    answer = server.post("/infill", body).json()
    assert answer["truncated"] is True
    assert 620 < answer["tokens_evaluated"] <= 896
