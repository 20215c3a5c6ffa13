"""Filling gaps: --suffix, `replit fill`, and `replit models`, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli import run
from test_text_stream import Bytes

from pipelines.known_models import find
from pipelines.pipeline import Pipeline
from pipelines.prompts.fim import fim_prompt
from pipelines.prompts.gap import Gap, gap_at
from pipelines.registry import set_trained_order
from pipelines.text.lexer import PYTHON
from refact.architecture import REFACT
from replit.architecture import REPLIT
from replit.decoder.architecture import Architecture
from weights.errors import UserError
from weights.tokenizers.tokenizer import FimTokens, SpecialTokens

CODE = "import os\n\n\ndef add(a, b):\n    return \n\n\nprint(add(1, 2))\n"


def test_a_gap_is_found_by_line_and_column() -> None:
    gap = gap_at(CODE, 5, 12, "x.py", PYTHON)
    assert gap == Gap("import os\n\n\ndef add(a, b):\n    return ", "\n\n\nprint(add(1, 2))\n", PYTHON, whole=True)
    assert gap_at(CODE, 1, 1, "x", None).prefix == ""
    assert gap_at(CODE, 9, 1, "x", None) == Gap(CODE, "", whole=True)
    assert gap_at("", 1, 1, "x", None) == Gap("", "", whole=True)
    assert gap_at("aé漢", 1, 3, "x", None) == Gap("aé", "漢", whole=True)
    assert gap_at("a\r\nb", 1, 2, "x", None) == Gap("a", "\r\nb", whole=True)
    # Lines as editors count them: a form feed, a lone CR and the like are characters of their line.
    odd = "a\x0cb\x0bc\u2028d\x85e\rf\ng"
    assert gap_at(odd, 2, 1, "x", None) == Gap(odd[:-1], "g", whole=True)
    assert gap_at(odd, 1, 12, "x", None) == Gap(odd[:11], "\ng", whole=True)


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        (0, 1, "--line is 0; expected 1 to 9, the lines of x.py"),
        (10, 1, "--line is 10; expected 1 to 9"),
        (5, 0, "--column is 0; expected 1 to 12, the columns of line 5 of x.py"),
        (5, 13, "--column is 13; expected 1 to 12"),
    ],
)
def test_places_that_a_file_does_not_have(line: int, column: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        gap_at(CODE, line, column, "x.py", None)


def test_both_orders_of_a_prompt() -> None:
    tokenizer = Bytes()
    tokenizer.special = SpecialTokens(eos=0, fim=FimTokens(1, 2, 3))
    assert fim_prompt(tokenizer, "ab", "cd", 9).ids == list(b"\x01ab\x02cd\x03")
    suffix_first = list(b"\x00\x02cd\x01ab\x03")
    assert fim_prompt(tokenizer, "ab", "cd", 9, suffix_first=True).ids == suffix_first
    tokenizer.special = SpecialTokens(eos=0, fim=FimTokens(1, 2, 3, suffix_first=True))
    assert fim_prompt(tokenizer, "ab", "cd", 9).ids == suffix_first


def test_the_order_is_the_architectures_unless_the_file_says_one() -> None:
    def order(architecture: Architecture, metadata: dict[str, object]) -> bool:
        tokenizer = Bytes()
        tokenizer.special = SpecialTokens(eos=0, fim=FimTokens(1, 2, 3))
        set_trained_order(tokenizer, architecture, metadata)
        assert tokenizer.fim is not None
        return tokenizer.fim.suffix_first

    assert order(REFACT, {})
    assert not order(REFACT, {"tokenizer.ggml.fim_suffix_first": False})
    assert not order(REPLIT, {})


def test_the_prompt_leaves_room_for_the_answer(nano: Pipeline) -> None:
    gap = Gap("x = 1\n" * 2000, "y = 2\n" * 2000)
    assert len(nano.gap(gap, 100).ids) <= nano.max_length - 100
    assert len(nano.gap(gap, -1).ids) <= nano.max_length * 3 // 4
    assert nano.max_length // 4 < len(nano.gap(gap, 1023).ids) <= nano.max_length // 2
    with pytest.raises(UserError, match="the text at the gap has"):
        nano.gap(Gap("", "", middle="x = 1\n" * 2000), 100)


def test_the_block_ends_by_the_language_of_the_file(nano: Pipeline) -> None:
    gap = gap_at(CODE, 5, 12, "x.py", PYTHON)
    whole = nano.fill(gap.prefix, gap.suffix, max_new_tokens=40).text
    line = nano.fill(gap.prefix, gap.suffix, language="x.py", completion="line", max_new_tokens=40)
    assert (line.text, line.finish_reason) == (whole.partition("\n")[0], "stop")


def test_fill_completes_at_a_position(nano: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(CODE)
    gap = gap_at(CODE, 5, 12, "module.py", PYTHON)
    expected = nano.fill(gap.prefix, gap.suffix, language="module.py", completion="block", max_new_tokens=20).text
    arguments = ["fill", str(path), "--line", "5", "--column", "12", "--max-new-tokens", "20", "--quiet"]
    alone, whole = run(*arguments), run(*arguments, "--whole-file")
    assert (alone.stdout.decode(), alone.stderr) == (expected + "\n", b"")
    assert whole.stdout.decode() == gap.prefix + expected + gap.suffix
    last = run("fill", str(path), "--line", "5", "--column", "12", "--max-new-tokens", "4", "--suffix-first", "--quiet")
    assert last.returncode == 0


def test_a_suffix_on_the_command_line(nano: Pipeline, tmp_path: Path) -> None:
    expected = nano.fill("def add(a, b):\n    return ", "\nprint(add(1, 2))", max_new_tokens=8).text
    (tmp_path / "suffix").write_text("\nprint(add(1, 2))")
    options = ["--prompt", "def add(a, b):\n    return ", "--max-new-tokens", "8", "--quiet"]
    for suffix in (["--suffix", "\nprint(add(1, 2))"], ["--suffix-file", str(tmp_path / "suffix")]):
        result = run(*options, *suffix)
        assert result.stdout.decode() == f"def add(a, b):\n    return {expected}\nprint(add(1, 2))\n"
    assert run(*options, *suffix, "--no-echo-prompt").stdout.decode() == expected + "\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["fill", "/nowhere.py", "--line", "1", "--column", "1"], 1, "cannot read /nowhere.py"),
        (["fill", __file__, "--line", "1"], 2, "Missing option '--column'"),
        (["--prompt", "x", "--suffix", "y", "--suffix-file", "z"], 2, "--suffix and --suffix-file are both given"),
        (["--prompt", "x", "--suffix-first"], 2, "--suffix-first is given without a suffix"),
        (["--prompt", "x", "--prefix-first"], 2, "--prefix-first is given without a suffix"),
    ],
)
def test_errors_are_one_line(arguments: list[str], status: int, message: str) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (status, b"")
    assert message in result.stderr.decode()
    assert len(result.stderr.splitlines()) == 1


def test_models_are_listed_with_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "hub" / "models--modularai--replit-code-1.5" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "replit-code-v1_5-3b-bf16.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    rows = {row["name"]: row for row in json.loads(run("models", "--json").stdout)}
    assert rows["replit/replit-code-v1_5-3b"]["here"] == str(snapshot)
    assert rows["replit/replit-code-v1-3b"]["here"] is None
    assert rows["smallcloudai/Refact-1_6B-fim"]["abilities"] == ["completion", "fill-in-the-middle", "chat"]
    table = run("models").stdout.decode().splitlines()
    assert table[0].split() == ["model", "parameters", "bfloat16", "licence", "context", "abilities", "here"]
    assert table[1].startswith("nano  ")
    assert [line.split()[-1] for line in table[1:]] == ["yes", "yes", "no", "no"]


def test_known_models_are_found_by_any_of_their_names() -> None:
    assert find("replit-code-v1_5-3b") is find("modularai/replit-code-1.5")
    assert find("NANO") is not None
    assert find("some/other") is None


def test_the_table_says_what_nano_is(nano: Pipeline) -> None:
    known = find("nano")
    assert known is not None
    assert known.context == nano.config.max_seq_len
    assert known.fill_in_the_middle == (nano.tokenizer.fim is not None)
