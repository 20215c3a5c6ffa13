"""Every option of every subcommand, as a user gives it: what it changes, or that it is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from test_cli import run
from test_evaluation import HUMAN_EVAL, write_lines

from pipelines.commands.cli import replit
from pipelines.pipeline import Pipeline, cache_encoding
from pipelines.prompts.gap import gap_at
from pipelines.registry import locate, parse_encoding
from pipelines.text.lexer import PYTHON
from replit.runtime.target import CPU
from weights.errors import UserError
from weights.tensor import Encoding

PROMPT = "def fibonacci(n):\n"
CODE = "import os\n\n\ndef add(a, b):\n    return \n"
NANO = str(locate("nano", None, None))
# Of no effect on the text; every way of loading gives it alike.
LOADING = ["--weight-path", NANO, "--quantization-encoding", "bfloat16", "--threads", "1", "--no-mmap"]
COMPILED = ["--mmap", "--model", NANO, "--kv-cache-encoding", "float32", "--serialized-model-path"]
SAMPLING: list[tuple[list[str], dict[str, Any]]] = [
    (["--strip"], {"strip": True}),
    (["--completion", "line"], {"completion": "line"}),
    (["--stop", "(", "--stop", "\n"], {"stop": ("(", "\n")}),
    (["--ignore-eos", "--repetition-penalty", "1.5"], {"ignore_eos": True, "repetition_penalty": 1.5}),
    (["--temperature", "0"], {"temperature": 0.0}),
    (
        "--top-k 50 --temperature 1.3 --top-p 0.9 --min-p 0.01 --seed 3".split(),
        {"top_k": 50, "temperature": 1.3, "top_p": 0.9, "min_p": 0.01, "seed": 3},
    ),
]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, nano: Pipeline) -> str:
    """nano's compiled file by `replit compile` with all of its options."""
    path = tmp_path_factory.mktemp("compiled") / "nano.replit"
    options = ["--model", "nano", "--target", "cpu", "--mmap", "--kv-cache-encoding", "float32", "--quiet"]
    options += ["--save-to-serialized-model-path", str(path)]
    result = run("compile", *options, "--weight-path", NANO, "--quantization-encoding", "bfloat16")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    return str(path)


@pytest.mark.parametrize(("options", "keywords"), SAMPLING, ids=lambda value: str(value)[:30])
def test_sampling_options_are_those_of_the_python_interface(
    nano: Pipeline, options: list[str], keywords: dict[str, Any]
) -> None:
    expected = nano.generate(PROMPT, max_new_tokens=24, **keywords).text
    result = run("--prompt", PROMPT, "--echo-prompt", "--max-new-tokens", "24", "--quiet", *options)
    assert (result.stdout.decode(), result.stderr) == (f"{PROMPT}{expected}\n", b"")


def test_every_way_of_loading_gives_the_same_text(nano: Pipeline, compiled: str) -> None:
    expected = PROMPT + nano.generate(PROMPT, max_new_tokens=6).text + "\n"
    for options in (LOADING, [*COMPILED, compiled, "--max-length", "64"]):
        result = run("--prompt", PROMPT, "--max-new-tokens", "6", "--quiet", *options)
        assert (result.stdout.decode(), result.stderr) == (expected, b"")


def test_debug_shows_where_an_error_comes_from() -> None:
    plain, debug = run("--prompt", "x", "--top-k", "-2"), run("--prompt", "x", "--top-k", "-2", "--debug")
    assert b"Traceback" not in plain.stderr
    assert b"Traceback" in debug.stderr
    assert plain.returncode == debug.returncode == 1


def test_the_version_is_the_packages() -> None:
    result = run("--version")
    assert result.stdout.startswith(b"replit, version 0.")


def test_bench_measures_what_its_long_options_ask_for(nano: Pipeline) -> None:
    options = "--prompt-tokens 4 --generate 2 --depth 0,3 --batch-size 1,2 --repeats 1 --output json".split()
    result = run("bench", "--model", "nano", *options, *LOADING[:-1], "--mmap")
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    tests = [(row["test"], row["batch"]) for row in measured["results"]]
    assert tests == [("pp4", 1), ("tg2", 1), ("tg2", 2), ("tg2@d3", 1), ("tg2@d3", 2), ("text2", 1), ("text2+draft", 1)]
    assert measured["weights_gb"] == nano.weight_bytes / 1e9
    guessed = json.loads(run("bench", *"--draft ngram -p 4 -n 12 -r 1 -o json".split()).stdout)["results"]
    assert [row["test"] for row in guessed] == ["pp4", "tg12", "text12", "text12+draft"]
    assert guessed[2]["tokens_per_read"] == 1
    assert guessed[3]["tokens_per_read"] >= 1


def test_fill_takes_the_options_of_models_and_sampling(nano: Pipeline, tmp_path: Path, compiled: str) -> None:
    (tmp_path / "x.py").write_text(CODE)
    keywords: dict[str, Any] = {"top_k": 50, "temperature": 1.3, "top_p": 0.9, "min_p": 0.01, "seed": 3}
    keywords |= {"repetition_penalty": 1.1, "stop": ("#",), "strip": True, "max_new_tokens": 16}
    gap = gap_at(CODE, 5, 12, "x.py", PYTHON)
    expected = nano.fill(gap.prefix, gap.suffix, language="x.py", completion="line", **keywords).text
    options = "--top-k 50 --temperature 1.3 --top-p 0.9 --min-p 0.01 --seed 3 --repetition-penalty 1.1".split()
    options += "--stop # --strip --max-new-tokens 16 --completion line --quiet --max-length 1024".split()
    for loading in (LOADING, [*COMPILED, compiled]):
        result = run("fill", str(tmp_path / "x.py"), "--line", "5", "--column", "12", *options, *loading)
        assert (result.stdout.decode(), result.stderr) == (expected + "\n", b"")


def test_evaluate_takes_the_options_of_models_and_sampling(tmp_path: Path, compiled: str) -> None:
    data, output = write_lines(tmp_path / "problems.jsonl", HUMAN_EVAL), tmp_path / "out"
    options = "--limit 2 --samples 2 --batch-size 3 --timeout 2.5 --memory 256 --workers 2 -k 1,2 --quiet".split()
    options += "--top-k 50 --temperature 0.3 --top-p 0.9 --min-p 0.01 --seed 3 --repetition-penalty 1.1".split()
    options += "--stop # --strip --max-new-tokens 4 --max-length 256 --allow-execution".split()
    arguments = ["evaluate", "humaneval", "--data", str(data), "--output", str(output), *options]
    result = run(*arguments, *LOADING[:-1], *COMPILED, compiled)
    assert (result.returncode, result.stderr) == (0, b"")
    results = json.loads((output / "results.json").read_text())
    settings = results["settings"]
    assert (settings["timeout"], settings["memory"], settings["max_length"]) == (2.5, 256, 256)
    sampling = {"top_k": 50, "temperature": 0.3, "top_p": 0.9, "min_p": 0.01, "seed": 3}
    sampling |= {"repetition_penalty": 1.1, "stop": ["#"], "strip": True, "max_new_tokens": 4}
    assert settings["sampling"] == sampling
    samples = [json.loads(line) for line in (output / "samples.jsonl").read_text().splitlines()]
    assert sorted(sample["task_id"] for sample in samples) == ["Test/product"] * 2 + ["Test/total"] * 2


@pytest.mark.parametrize(
    "command", ["", "bench", "fill x.py --line 1 --column 1", "evaluate humaneval --generate-only"]
)
def test_a_gpu_that_is_not_there_is_one_line(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.py").write_text(CODE)
    arguments = [*command.split(), "--use-gpu", "97"]
    if command.startswith("evaluate"):
        arguments += ["--data", str(write_lines(Path("problems.jsonl"), HUMAN_EVAL))]
    result = run(*arguments, *([] if command else ["--prompt", "x"]))
    lines = result.stderr.decode().splitlines()
    assert (result.returncode, len(lines), result.stdout) == (1, 1, b""), result.stderr
    assert lines[0].startswith("replit: --use-gpu 97 found ")
    assert "expected" in lines[0]


def test_every_option_is_given_in_a_test() -> None:
    sources = " ".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    sources += (Path(__file__).parent / "running_server.py").read_text()
    words = set(sources.replace('"', " ").replace("'", " ").replace("=", " ").replace(",", " ").split())
    context = click.Context(replit)
    for name in ["", *replit.list_commands(context)]:
        command = replit.get_command(context, name) if name else replit
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option):
                assert words & {*option.opts, *option.secondary_opts}, f"no test gives replit {name} {option.opts[0]}"


def test_encodings_of_the_cache_are_named_in_capitals_too() -> None:
    result = run("--prompt", "x", "--kv-cache-encoding", "q8_0")
    assert (result.returncode, result.stdout) == (2, b"")
    assert b"'--kv-cache-encoding': 'q8_0' is not one of 'float32', 'bfloat16'." in result.stderr
    (option,) = (option for option in replit.params if option.name == "kv_cache_encoding")
    assert option.type.convert("BFloat16", option, None) == "bfloat16"
    with pytest.raises(UserError, match="is 'q8_0'; expected float32 or bfloat16 on the CPU"):
        cache_encoding("q8_0", CPU)


def test_an_encoding_that_nothing_is_computed_in_is_refused_with_those_that_are() -> None:
    assert parse_encoding("Q4_K") == Encoding.Q4_K
    with pytest.raises(UserError, match="is 'float16'; expected one of float32, bfloat16, q8_0, q4_0, q4_k, q6_k$"):
        parse_encoding("float16")


def test_what_is_mapped_is_a_matter_of_the_cpu() -> None:
    result = run("compile", "--target", "cuda:sm_90", "--mmap", "--save-to-serialized-model-path", "x")
    assert result.returncode == 1
    assert result.stderr == b"replit: --mmap is given with --target cuda:sm_90; expected it with cpu: leave it out\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--model x --seed 7 fill f.py --line 2 --column 11",
            r"--model, --seed before fill is lost; expected after it: replit fill --model",
        ),
        ("--temperature 0 inspect x", r"--temperature before inspect is lost"),
        ("--prompt x --port 99 --api-key k", r"--port, --api-key has no meaning without --serve; leave it out, or add"),
        ("--prompt x --cache-dir /tmp/x", r"--cache-dir has no meaning without --serve"),
        ("--serve --quiet", r"--quiet has no meaning with --serve"),
        ("--serve --no-prefix-caching --cache-dir /tmp/x", r"expected it without --no-prefix-caching"),
        ("--serve --cache-dir-size 1000", r"--cache-dir-size is the size of --cache-dir; expected that too"),
        ("--serve --cache-dir=", r"--cache-dir is empty; give it a value, or leave it out"),
        ("--serve --allowed-host=", r"--allowed-host is empty; give it a value, or leave it out"),
        ("--serve --open-metrics", r"--open-metrics opens what a key closes; expected --api-key too"),
        ("--serve --cors-origin editor.example/", r"--cors-origin is 'editor.example/'; expected what browsers send"),
    ],
)
def test_options_that_would_be_lost_are_refused(arguments: str, message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        replit.main(arguments.split(), standalone_mode=False)


def test_a_hash_without_its_file_is_refused() -> None:
    result = run("--prompt", "x", "--serialized-model-sha256", "abc")
    assert result.returncode == 1
    assert b"--serialized-model-sha256 is given without the file whose hash it is" in result.stderr
