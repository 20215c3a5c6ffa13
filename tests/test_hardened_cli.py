"""The command line where something is wrong around it: streams, disks, interrupts, spelling: one line, one status."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pipelines.pipeline import Pipeline
from pipelines.terminal.report import visible
from replit.runtime.compiled_file import read_compiled, read_header_alone
from replit.runtime.cores import cpu_quota, memory_limit
from weights.embedded_models import EMBEDDED
from weights.errors import UserError

COMMAND = [sys.executable, "-m", "pipelines"]
ROOT = Path(__file__).parent.parent


def run(
    *arguments: str, env: dict[str, str] | None = None, shell: str = "", stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """The command, its streams as `shell` redirects them."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **(env or {})}
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", *COMMAND, *arguments] if shell else [*COMMAND, *arguments]
    source: dict[str, Any] = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run(command, capture_output=True, env=environment, timeout=300, check=False, **source)


GENERATE = ("--prompt", "def f(", "--max-new-tokens", "4", "--quiet")


@pytest.mark.parametrize(
    ("arguments", "shell", "status", "error"),
    [
        (("--help",), ">/dev/full", 1, "cannot write to standard output: No space left"),
        (("--help",), ">&-", 1, "cannot write to standard output: Bad file descriptor"),
        (("--version",), ">/dev/full", 1, "cannot write to standard output"),
        (("models",), ">/dev/full", 1, "cannot write"),
        (GENERATE, ">/dev/full", 1, "cannot write to standard output: No space left"),
        (GENERATE, ">&-", 1, "cannot write to standard output"),
        (("--no-such-option",), "2>/dev/full", 2, ""),
        (("--no-such-option",), "2>&-", 2, ""),
        (("--prompt", "def f(", "--max-new-tokens", "4"), "2>/dev/full", 0, ""),
        (("--prompt", "def f(", "--max-new-tokens", "4"), "2>&-", 0, ""),
        ((), "<&-", 1, "the prompt is empty"),
    ],
    ids=str,
)
def test_streams_that_are_full_or_closed(
    nano: Pipeline, arguments: tuple[str, ...], shell: str, status: int, error: str
) -> None:
    result = run(*arguments, shell=shell)
    assert result.returncode == status, result.stderr
    lines = result.stderr.decode().splitlines()
    assert len(lines) == (1 if error else 0), lines
    assert error in "".join(lines)


@pytest.mark.parametrize("shell", ["2>/dev/full", "2>&1 | head -n 1"])
def test_a_conversion_goes_on_where_nobody_reads_what_it_says(shell: str, tmp_path: Path) -> None:
    path = tmp_path / "nano.gguf"
    run("convert", "nano", str(path), shell=shell)
    assert path.stat().st_size > 13_000_000


@pytest.mark.skipif(find_spec("uvloop") is None, reason="needs the extra serve")
@pytest.mark.parametrize("shell", ["2>&-", "<&- >&- 2>&-"])
def test_a_server_without_streams_serves(nano: Pipeline, shell: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", *COMMAND, "--serve", "--port", str(port), "--max-length", "64"]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        status = 0
        while status != 200 and process.poll() is None:
            time.sleep(0.1)
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", "/health")
                status = connection.getresponse().status
        assert status == 200
        process.terminate()
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["def f("], 2, "expected, if it is text to complete: replit --prompt 'def f('"),
        (["run"], 2, "expected: replit --prompt"),
        (["list"], 2, "expected: replit models"),
        (["benhc"], 2, "expected: replit bench"),
        (["help", "nothing"], 2, "is no command"),
        (["-m", "nanoo", "-p", "x"], 1, "there is no model 'nanoo'; expected: --model nano"),
        (["-m", "Nano", "-p", "x"], 1, "expected: --model nano"),
        (["-m", "replit-code-v1_5-3b", "-p", "x"], 1, "expected: --model replit/replit-code-v1_5-3b"),
        (["serve", "-m", "nanoo"], 1, "there is no model 'nanoo'"),
        (["serve", "--max-length", "999999"], 1, "--max-length is 999999"),
        (["serve", "--serialized-model-path", "/dev/zero"], 1, "is no regular file"),
        (["serve", "--model", "/nowhere.gguf"], 1, "/nowhere.gguf"),
        (["serve", "--api-key", ""], 1, "is empty; expected a key"),
        (["serve", "--shutdown-timeout", "inf"], 2, "inf is not finite; expected a number"),
        (["serve", "--shutdown-timeout", "nan"], 2, "nan is not finite; expected a number"),
        (["serve", "--stall-timeout", "nan"], 2, "nan is not finite; expected a number"),
        (["evaluate", "humaneval", "--timeout", "inf"], 2, "inf is not finite; expected a number"),
        (["serve", "--max-cache-batch-size", "1000000"], 1, "GB for keys and values; expected at most the"),
        (["-p", "x", "--max-cache-batch-size", "1000000"], 1, "GB for keys and values; expected at most the"),
        (["-p", "x", "--suffix-file", "/dev/zero"], 1, "holds more than 64 MiB"),
        (["-p", "x", "--suffix-file", "/"], 1, "cannot read / (Is a directory)"),
        (["-p", "-", "-p", "-"], 2, "--prompt - is given several times"),
        (["-p", "x", "--serialized-model-path", "/dev/null"], 1, "is no regular file"),
        (["-p", "x", "--weight-path", ""], 2, "Invalid value for '--weight-path': the path is empty; expected one"),
        (["--save-to-serialized-model-path", ""], 2, "the path is empty; expected one"),
        (["convert", "nano", ""], 2, "Invalid value for 'DST': the path is empty; expected one"),
        (["-p", "x", "-m", "a" * 300], 1, "aaa (File name too long); expected a path that can be read"),
        (
            ["convert", "nano", "a" * 300 + ".gguf"],
            1,
            "aaa.gguf (File name too long); expected a path that can be read",
        ),
        (["-p", "x", "-m", "\x1b[31m\u202eevil"], 1, "\\x1b[31m\\u202eevil"),
    ],
    ids=str,
)
def test_one_line_that_says_what_was_meant(nano: Pipeline, arguments: list[str], status: int, message: str) -> None:
    result = run(*arguments)
    lines = result.stderr.decode().splitlines()
    assert (result.returncode, len(lines), result.stdout) == (status, 1, b""), result.stderr
    assert message in lines[0]
    assert "listening" not in lines[0]


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder with the files of a model, in which nobody may look."""
    folder = tmp_path / "closed"
    folder.mkdir()
    for name in ("m.gguf", "tokenizer.json", "config.json"):
        (folder / name).write_bytes(EMBEDDED["nano"].read_bytes())
    folder.chmod(0)
    yield folder
    folder.chmod(0o755)


LONG = "a" * 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("inspect CLOSED", "cannot read CLOSED (Permission denied); expected a path that can be read"),
        ("inspect CLOSED/m.gguf", "cannot read CLOSED/m.gguf (Permission denied)"),
        ("convert CLOSED/m.gguf CLOSED/../o.gguf", "cannot read CLOSED/m.gguf (Permission denied)"),
        ("convert nano CLOSED/o.gguf", "CLOSED/o.gguf"),
        ("convert nano CLOSED", "Permission denied"),
        ("convert nano CLOSED/", "Permission denied"),
        ("-p x --model CLOSED", "cannot read CLOSED (Permission denied)"),
        ("-p x --weight-path CLOSED/m.gguf", "cannot read CLOSED/m.gguf (Permission denied)"),
        ("-p x --tokenizer CLOSED/tokenizer.json", "CLOSED/tokenizer.json"),
        ("-p x --config CLOSED/config.json", "cannot read CLOSED/config.json (Permission denied)"),
        ("serve --model CLOSED/m.gguf", "cannot read CLOSED/m.gguf (Permission denied)"),
        ("serve --config CLOSED/config.json", "cannot read CLOSED/config.json (Permission denied)"),
        ("evaluate humaneval --generate-only --output CLOSED/out", "cannot use CLOSED/out (Permission denied)"),
        (f"inspect {LONG}", "aaa (File name too long); expected a path that can be read"),
        (f"convert nano {LONG}.gguf", "File name too long"),
        (f"-p x --model {LONG}", "(File name too long)"),
        (f"-p x --tokenizer {LONG}", "File name too long"),
        ("convert FILE FILE/ --force", "nano.gguf is a file; expected a directory: leave the slash out"),
    ],
)
def test_places_that_cannot_be_used_are_one_line(arguments: str, message: str, closed: Path) -> None:
    told = [text.replace("CLOSED", str(closed)).replace("FILE", str(EMBEDDED["nano"])) for text in arguments.split()]
    lines = run_unprivileged(*told).stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert message.replace("CLOSED", str(closed)) in lines[0]


def run_unprivileged(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """The command without the power of root to look everywhere."""
    if os.geteuid():
        return run(*arguments)
    tool = shutil.which("setpriv")
    if tool is None:
        pytest.skip("runs as root, whom permissions do not stop, and there is no setpriv")
    rights = [tool, "--bounding-set", "-dac_override,-dac_read_search"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [*rights, *COMMAND, *arguments]
    return subprocess.run(
        command, capture_output=True, env=environment, stdin=subprocess.DEVNULL, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "PIPE"], "PIPE is no regular file; expected a GGUF or safetensors file"),
        (["evaluate", "humaneval", "--generate-only", "--data", "PIPE"], "nobody writes to this pipe"),
        (["-p", "x", "--suffix-file", "PIPE", "--max-new-tokens", "1"], "nobody writes to this pipe"),
        (["-p", "x", "--config", "PIPE"], "PIPE is no regular file; expected a JSON object"),
    ],
)
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(arguments: list[str], message: str, tmp_path: Path) -> None:
    pipe = tmp_path / "PIPE"
    os.mkfifo(pipe)
    result = run(*(text.replace("PIPE", str(pipe)) for text in arguments))
    assert message in result.stderr.decode()
    assert len(result.stderr.splitlines()) <= 1


@pytest.mark.skipif(find_spec("uvloop") is None, reason="needs the extra serve")
def test_a_server_that_cannot_use_its_folder_says_so_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    result = run(
        "serve", "--port", "0", "--max-length", "64", "--max-cache-batch-size", "1", "--cache-dir", str(folder)
    )
    told = result.stderr.decode().splitlines()
    assert (result.returncode, "listening" in told[0]) == (1, True)
    reason = f"cannot use --cache-dir {folder}: Not a directory; give a folder of your own"
    assert told[-1].endswith(f' error reason="{reason}"')


def test_help_and_serve_are_commands() -> None:
    whole = run("--help").stdout
    assert run("help").stdout == whole
    assert run("help", "bench").stdout.startswith(b"Usage: replit bench")
    assert (
        run("serve", "--help").stdout
        == run("help", "serve").stdout
        == run("--use-gpu", "0", "serve", "--help").stdout
        == whole
    )
    assert run("--max-length", "99", "serve", "--port", "0", "--suffix", "x").returncode == 2


def test_a_byte_order_mark_is_left_out_and_said(nano: Pipeline) -> None:
    expected = nano.generate("import os\n", max_new_tokens=4).text
    result = run("--no-echo-prompt", "--max-new-tokens", "4", stdin=b"\xef\xbb\xbfimport os\n")
    assert result.stdout.decode() == expected + "\n"
    assert b"standard input begins with a byte order mark, which is left out" in result.stderr


def test_standard_input_beside_another_prompt(nano: Pipeline) -> None:
    result = run("-p", "-", "-p", "x =", "--max-new-tokens", "2", "--quiet", stdin=b"import ")
    texts = [nano.generate(prompt, max_new_tokens=2).text for prompt in ("import ", "x =")]
    assert result.stdout.decode() == f"--- 1 of 2 ---\nimport {texts[0]}\n--- 2 of 2 ---\nx ={texts[1]}\n"


def test_any_locale_takes_text(nano: Pipeline) -> None:
    result = run("--prompt", "# é\n", "--max-new-tokens", "2", "--quiet", env={"LC_ALL": "C", "LANG": ""})
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.decode().startswith("# é\n")


@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6])
def test_an_early_interrupt_is_quiet(nano: Pipeline, seconds: float) -> None:
    """From the moment that Python itself has started; its own start knows no handler but the one that complains."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = "import sys; from pipelines import start; sys.stderr.write('!'); sys.stderr.flush(); start.main()"
    arguments = ["--prompt", "def f(", "--ignore-eos", "--max-length", "2000", "--quiet", "--no-echo-prompt"]
    command = [sys.executable, "-c", code, *arguments]
    # A shell starts what it puts in the background without SIGINT, and a child inherits that.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.read(1) == b"!"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    # Where Python itself ends by the signal, a shell says 130 too.
    assert process.returncode in (130, -signal.SIGINT)
    assert error.strip() == b""


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.4])
def test_an_interrupt_right_after_listening_ends_the_server(nano: Pipeline, seconds: float) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*COMMAND, "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stderr is not None
    assert b"listening" in process.stderr.readline()
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, b"")
    assert b"Traceback" not in error
    assert b"Error" not in error


def test_a_device_is_no_place_for_a_compiled_model(nano: Pipeline, tmp_path: Path) -> None:
    """A file that is renamed to its name would take the device's place for everybody."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path):
        result = run("--save-to-serialized-model-path", str(path), "--quiet")
        assert result.returncode == 1, result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert b"cannot write the serialized model" in result.stderr
    assert fifo.is_fifo()
    assert list(tmp_path.iterdir()) == [fifo]


def _file(folder: Path, header: bytes, body: bytes) -> Path:
    path = folder / "made.replit"
    prefix = struct.pack("<8sII32s", b"RPLTMAX\x00", 2, len(header), sha256(header).digest())
    path.write_bytes(prefix + header + body)
    return path


def _header(body: bytes, **more: Any) -> bytes:
    return json.dumps({"key": {}, "body_sha256": sha256(body).hexdigest(), **more}).encode()


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        (b"[]", b"", "does not say what it was compiled from"),
        (b"no json", b"", "does not say what it was compiled from"),
        (b"[" * 100_000, b"", "does not say what it was compiled from"),
        (b'{"body_sha256": ""}', b"", "does not say what it was compiled from"),
        (b'{"key": {}}', b"", "has no checksum of the rest"),
        (_header(b""), b"", "is no compiled model"),
        (_header(b"/etc/passwd"), b"/etc/passwd", "is no compiled model"),
        (_header(b"\xee\xf0\x03"), b"\xee\xf0\x03", "is no compiled model"),
    ],
    ids=["list", "text", "deep", "no key", "no checksum", "empty", "a path", "short"],
)
def test_what_max_would_open_or_run_is_looked_at_first(
    tmp_path: Path, header: bytes, body: bytes, message: str
) -> None:
    path = _file(tmp_path, header, body)
    with pytest.raises(UserError, match=message):
        read_compiled(path)


def test_a_serialized_model_must_have_the_digest_that_is_asked_for(tmp_path: Path) -> None:
    body = b"\xee\xf0\x03" + bytes(100)
    path = _file(tmp_path, _header(body), body)
    digest = sha256(path.read_bytes()).hexdigest()
    assert read_compiled(path, digest.upper()).body == body
    assert read_header_alone(path)["key"] == {}
    with pytest.raises(UserError, match="it is another file, do not load it"):
        read_compiled(path, "0" * 64)
    with pytest.raises(UserError, match="expected 64 hexadecimal digits"):
        read_compiled(path, "abc")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for reader in (read_compiled, read_header_alone):
        with pytest.raises(UserError, match="is no regular file"):
            reader(fifo)


def test_what_a_terminal_would_obey_is_shown_as_an_escape() -> None:
    assert visible("a\x1b[2Jb\u202ec\u200bd\x9be\ud800") == "a\\x1b[2Jb\\u202ec\\u200bd\\x9be\\ud800"
    assert visible("naïve 日本 🙂") == "naïve 日本 🙂"


def test_quotas_of_containers(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/user/service\n")
    assert cpu_quota(tmp_path, own) is None
    (tmp_path / "user" / "service").mkdir(parents=True)
    (tmp_path / "user" / "service" / "cpu.max").write_text("max 100000\n")
    (tmp_path / "user" / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota(tmp_path, own) == 1.5
    (tmp_path / "user" / "memory.max").write_text("1000\n")
    (tmp_path / "user" / "memory.current").write_text("400\n")
    assert memory_limit(tmp_path, own) == 600
    (tmp_path / "user" / "memory.stat").write_text("anon 100\ninactive_file 250\nactive_file 50\n")
    assert memory_limit(tmp_path, own) == 900
    old = tmp_path / "old"
    old.write_text("5:cpu,cpuacct:/docker/x\n")
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(tmp_path, old) == 2.0
    assert cpu_quota(tmp_path, tmp_path / "none") is None


def test_the_package_shows_what_it_has(nano: Pipeline) -> None:
    import pipelines

    assert {"load", "Pipeline", "Completion", "UserError", "__version__"} <= set(dir(pipelines))
    assert pipelines.__version__
    with pipelines.load(max_length=64) as model:
        assert model.generate("import ", max_new_tokens=1).text


def test_the_cache_is_shown_and_cleaned(tmp_path: Path) -> None:
    environment = {"REPLIT_CACHE_DIR": str(tmp_path)}
    assert b"0 compiled models" in run("cache", env=environment).stdout
    body = b"\xee\xf0\x03" + bytes(100)
    made = _file(tmp_path, _header(body, key={"device": "cpu", "kernels": "older", "architecture": "\x1b[2J"}), body)
    (tmp_path / "broken.replit").write_bytes(b"x")
    (tmp_path / "mine.txt").write_text("kept")
    shown = run("cache", env=environment).stdout.decode()
    assert "\x1b" not in shown
    assert "made.replit" in shown
    assert "of another version" in shown
    assert "unreadable" in shown
    assert run("cache", "--remove-old", env=environment).returncode == 0
    assert not made.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "broken.replit").write_bytes(b"x")
    assert run("cache", "--remove", env=environment).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
