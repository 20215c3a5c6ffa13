"""The command `replit` as a user runs it: a process, its standard streams and its exit status."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.pipeline import Pipeline

COMMAND = [sys.executable, "-c", "from pipelines.commands.cli import main; main()"]
ROOT = Path(__file__).parent.parent


def run(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    source = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, env=environment, timeout=300, check=False, **source
    )


def test_the_prompt_and_its_completion_go_to_standard_output(nano: Pipeline) -> None:
    expected = nano.generate("def fibonacci(n):", max_new_tokens=12)
    result = run("--prompt", "def fibonacci(n):", "--max-new-tokens", "12")
    assert result.returncode == 0, result.stderr
    assert result.stdout.decode() == f"def fibonacci(n):{expected.text}\n"
    assert b"tokens/s" in result.stderr


def test_piped_text_is_the_prompt_and_nothing_else_is_said(nano: Pipeline) -> None:
    expected = nano.generate("import os\n", max_new_tokens=8)
    result = run("--no-echo-prompt", "--max-new-tokens", "8", "--quiet", stdin=b"import os\n")
    assert (result.stdout.decode(), result.stderr) == (expected.text + "\n", b"")


def test_a_batch_prints_each_completion_under_a_heading(nano: Pipeline) -> None:
    options = ["--max-new-tokens", "5", "--max-cache-batch-size", "2", "--quiet"]
    result = run("--prompt", "def a(", "--prompt", "class B", *options)
    texts = [nano.generate(p, max_new_tokens=5).text for p in ("def a(", "class B")]
    assert result.stdout.decode() == (f"--- 1 of 2 ---\ndef a({texts[0]}\n--- 2 of 2 ---\nclass B{texts[1]}\n")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot limit cores")
def test_one_thread_gives_the_same_text_and_more_than_the_cores_are_refused(nano: Pipeline) -> None:
    options = ("--prompt", "def fibonacci(n):", "--max-new-tokens", "8", "--temperature", "0")
    alone = run(*options, "--threads", "1")
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout == run(*options).stdout
    refused = run(*options, "--threads", "4096")
    assert refused.returncode == 1
    assert b"--threads is 4096; expected at most" in refused.stderr


def test_samples_repeat_with_a_seed() -> None:
    options = "--prompt x --top-k 40 --seed 5 --max-new-tokens 6 --num-return-sequences 2 --quiet"
    first, second = run(*options.split()), run(*options.split(), "--max-cache-batch-size", "2")
    assert first.stdout == second.stdout
    one, two = first.stdout.decode().split("--- 2 of 2 ---\n")
    assert one.removeprefix("--- 1 of 2 ---\n") != two


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--prompt", ""], 1, "the prompt is empty; expected text to complete"),
        (["--prompt", "x", "--top-k", "-2"], 1, "--top-k is -2; expected a whole number from -1 up"),
        (["--prompt", "x", "--temperature", "nan"], 1, "--temperature is nan; expected a number"),
        (["--prompt", "x", "--temperature", "-1"], 1, "--temperature is -1.0; expected a number"),
        (["--prompt", "x", "--max-length", "9999"], 1, "--max-length is 9999; expected at most 2048"),
        (["--prompt", "x", "--max-length", "0"], 1, "--max-length is 0; expected a whole number"),
        (["--prompt", "x " * 600], 1, "tokens; expected fewer than 512: shorten it, or raise"),
        (["--prompt", "x", "--model", "/nowhere.gguf"], 1, "/nowhere.gguf"),
        (["--prompt", "x", "--weight-path", "/etc/passwd"], 1, "/etc/passwd"),
        (["--prompt", "x", "--serialized-model-path", "/etc/passwd"], 1, "is not a serialized model"),
        (["--prompt", "x", "--top-k", "many"], 2, "Invalid value for '--top-k'"),
        (["--prompt", "x", "--no-such-option"], 2, "No such option"),
        (["--prompt", "x", "--quantization-encoding", "q3"], 2, "'q3' is not one of"),
        (["--prompt", "x", "--stop", ""], 1, "--stop is an empty string"),
        (
            ["--prompt", "x", "--serialized-model-path", "/x", "--serialized-model-sha256", "0"],
            1,
            "cannot read",
        ),
        (["--serve", "--temperature", "nan"], 1, "--temperature is nan; expected a number"),
        (["--serve", "--top-p", "7"], 1, "--top-p is 7.0; expected a number"),
        (["--serve", "--stop", ""], 1, "--stop is an empty string"),
        (["--serve", "--top-k", "-2"], 1, "--top-k is -2; expected a whole number"),
    ],
)
def test_errors_are_one_line(nano: Pipeline, arguments: list[str], status: int, message: str) -> None:
    result = run(*arguments)
    lines = result.stderr.decode().splitlines()
    assert (result.returncode, len(lines), result.stdout) == (status, 1, b""), result.stderr
    assert lines[0].startswith("replit: ")
    assert message in lines[0]


def test_input_that_is_no_text_is_refused() -> None:
    result = run(stdin=b"abc\xff")
    assert result.returncode == 1
    assert b"standard input is not UTF-8 text (invalid start byte at byte 3)" in result.stderr


def test_without_a_prompt_on_a_terminal_it_says_what_to_type() -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(COMMAND, stdin=slave, capture_output=True, env=environment, timeout=60, check=False)
    os.close(master)
    os.close(slave)
    assert result.returncode == 2
    assert result.stderr.startswith(b"replit: there is no prompt; expected --prompt TEXT")


def test_saving_and_loading_the_compiled_model(nano: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "nano.replit"
    saved = run("--save-to-serialized-model-path", str(path))
    assert (saved.returncode, saved.stdout) == (0, b""), saved.stderr
    result = run("--serialized-model-path", str(path), "--prompt", "import ", "--max-new-tokens", "4")
    assert result.returncode == 0
    assert result.stdout.decode() == "import " + nano.generate("import ", max_new_tokens=4).text + "\n"
    damaged = path.read_bytes()
    path.write_bytes(damaged[:-10] + bytes(10))
    result = run("--serialized-model-path", str(path), "--prompt", "import ")
    assert result.returncode == 1
    assert b"is damaged: its contents do not have the recorded checksum" in result.stderr


def test_an_interrupt_keeps_what_was_written(nano: Pipeline) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = "--prompt def --ignore-eos --top-k 50 --max-length 2000 --quiet".split()
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    assert process.stdout.read(4)[:3] == b"def"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.endswith(b"\n")
    assert b"Traceback" not in error


def test_help_needs_no_max_and_no_numpy() -> None:
    check = """
import sys
sys.argv = ["replit", "--help"]
from pipelines.commands.cli import main
try:
    main()
finally:
    assert not {"max", "numpy", "tokenizers"} & set(sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", check],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert b"--prompt TEXT" in result.stdout
