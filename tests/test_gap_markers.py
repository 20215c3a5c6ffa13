"""Prompts that spell a gap with some model's markers, as editors' templates do, are read as that gap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pipelines.prompts.gap import Gap
from pipelines.prompts.markers import spelled_gap

if TYPE_CHECKING:
    from running_server import RunningServer

    from pipelines.pipeline import Pipeline

BEFORE = "import os\n\n\ndef read_lines(path):\n    with open(path) as f:\n        retu"
AFTER = "\n\n\nprint(read_lines('a.txt'))\n"
GAP = Gap(BEFORE, AFTER)
# How the templates of Continue, Tabby, Twinny, Zed, llama-coder, cmp-ai, vim-ollama and llm.nvim spell it.
SPELLED = {
    "StarCoder": f"<fim_prefix>{BEFORE}<fim_suffix>{AFTER}<fim_middle>",
    "StarCoder, suffix first": f"<fim_suffix>{AFTER}<fim_prefix>{BEFORE}<fim_middle>",
    "Qwen": f"<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>",
    "SantaCoder": f"<fim-prefix>{BEFORE}<fim-suffix>{AFTER}<fim-middle>",
    "Code Llama": f"<PRE> {BEFORE} <SUF>{AFTER} <MID>",
    "Code Llama, as Twinny and llama-coder have it": f"<PRE> {BEFORE} <SUF> {AFTER} <MID>",
    "DeepSeek": f"<\uff5cfim\u2581begin\uff5c>{BEFORE}<\uff5cfim\u2581hole\uff5c>{AFTER}<\uff5cfim\u2581end\uff5c>",
    "GLM": f"<|code_prefix|>{BEFORE}<|code_suffix|>{AFTER}<|code_middle|>",
    "Seed-Coder": f"<[fim-suffix]>{AFTER}<[fim-prefix]>{BEFORE}<[fim-middle]>",
    "Codestral": f"[SUFFIX]{AFTER}[PREFIX]{BEFORE}",
    "end of text first": f"<|endoftext|><fim_prefix>{BEFORE}<fim_suffix>{AFTER}<fim_middle>",
}


@pytest.mark.parametrize("text", SPELLED.values(), ids=SPELLED)
def test_what_stands_around_the_gap_is_found(text: str) -> None:
    assert spelled_gap(text) == GAP


def test_text_of_other_files_and_the_beginning_of_the_gap() -> None:
    context = "<|repo_name|>r\n<|file_sep|>b.py\nx = 1\n"
    assert spelled_gap(context + SPELLED["Qwen"]) == Gap(BEFORE, AFTER, context=context)
    assert spelled_gap(SPELLED["StarCoder"] + "rn f") == Gap(BEFORE, AFTER, middle="rn f")


@pytest.mark.parametrize(
    "text",
    [
        "", "def f(", "<fim_prefix>", "<fim_prefix>a<fim_suffix>b", "<fim_prefix>a<fim_middle>b<fim_suffix>",
        "<fim_prefix>a<fim_prefix>b<fim_suffix>c<fim_middle>", "<fim_prefix>a<fim_suffix>b<fim_middle>c<fim_middle>",
        "MARKERS = '<PRE>', '<SUF>', '<MID>'\nprint(MARKERS)\n", "<fim_prefix>a<|fim_suffix|>b<fim_middle>",
        "[SUFFIX]a", "[SUFFIX]a[SUFFIX]b[PREFIX]c", "x[SUFFIX]a[PREFIX]b",
    ],
)  # fmt: skip
def test_anything_else_is_read_as_it_stands(text: str) -> None:
    assert spelled_gap(text) is None


ROUTES: dict[str, Any] = {
    "/completion": lambda text: {"prompt": text, "n_predict": 24, "temperature": 0},
    "/v1/completions": lambda text: {"prompt": text, "max_tokens": 24, "temperature": 0},
    "/v1/chat/completions": lambda text: {
        "messages": [{"role": "user", "content": text}], "max_tokens": 24, "temperature": 0,
    },
    "/api/generate": lambda text: {
        "prompt": text, "raw": True, "stream": False, "options": {"num_predict": 24, "temperature": 0},
    },
}  # fmt: skip


def answer_text(answer: dict[str, Any]) -> str:
    if "choices" in answer:
        choice = answer["choices"][0]
        return choice["message"]["content"] if "message" in choice else choice["text"]
    return answer.get("content", answer.get("response"))


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_fills_the_gap(server: RunningServer, nano: Pipeline, route: str) -> None:
    """The same text as `suffix` gives, which is healed, in the model's own order, and does not repeat the suffix."""
    gap = {"input_prefix": BEFORE, "input_suffix": AFTER, "n_predict": 24, "temperature": 0}
    expected = server.post("/infill", gap).json()["content"]
    assert expected.startswith("rn")
    for name, text in SPELLED.items():
        assert answer_text(server.post(route, ROUTES[route](text)).json()) == expected, name


def test_markers_can_be_read_as_they_stand(server: RunningServer, nano: Pipeline) -> None:
    text = SPELLED["StarCoder"]
    body = ROUTES["/v1/completions"](text)
    plain = server.post("/v1/completions", body | {"gap_markers": False}).json()
    ids = server.post("/v1/completions", body | {"prompt": nano.encode(text)}).json()
    assert plain["choices"][0]["text"] == ids["choices"][0]["text"]
    assert plain["usage"]["prompt_tokens"] == len(nano.encode(text))
    echoed = server.post("/v1/completions", body | {"echo": True}).json()
    assert echoed["choices"][0]["text"] == text + plain["choices"][0]["text"]


def test_a_whole_file_around_the_gap_is_cut_where_it_is_too_long(server: RunningServer) -> None:
    long = "".join(f"x{i} = {i}\n" for i in range(2000))
    answer = server.post("/completion", {"prompt": SPELLED["Code Llama"].replace("import os", long), "n_predict": 8})
    assert answer.status_code == 200
    assert answer.json()["truncated"] is True
