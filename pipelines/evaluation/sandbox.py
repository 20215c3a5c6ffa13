"""Runs one program in a process of its own, with limits, and tells how it ended. Unix only."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from weights.files.mapped_file import json_object

Status = Literal["passed", "failed", "timed out", "out of memory", "killed"]
_RUNNER = Path(__file__).parent / "program_runner.py"
_LONGEST_REPORT = 4096
_LOOK_SECONDS = 0.2  # between two looks at what a program has written
_TOO_MUCH = b'{"error": "OSError", "message": "its files are larger than the memory it may use"}'
OVER = b"over\n"  # the program has run to its end, see program_runner.py


@dataclass(frozen=True)
class Limits:
    """What a program may use: wall-clock seconds, bytes of memory, and as many of files, which may lie in it."""

    seconds: float = 5.0
    memory: int = 1 << 30


@dataclass(frozen=True)
class Outcome:
    """How a program ended; `detail` is the exception that ended it, if one did."""

    status: Status
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether it ran to its end."""
        return self.status == "passed"


def run_program(source: str, limits: Limits) -> Outcome:
    """Runs Python source. Its output goes nowhere; its process group is gone when this returns."""
    folder = tempfile.mkdtemp(prefix="replit-evaluation-")
    try:
        return _run_in(folder, source, limits)
    finally:
        with contextlib.suppress(OSError):
            _remove(folder)


def _run_in(folder: str, source: str, limits: Limits) -> Outcome:
    word = secrets.token_hex(16)
    reading, writing = os.pipe()
    word_reading, word_writing = os.pipe()
    process = _start(folder, writing, word_reading, limits)
    os.close(writing)
    os.close(word_reading)
    try:
        deadline = time.monotonic() + limits.seconds
        _send(process, source)
        raw = _report(reading, deadline, lambda: _has_more(folder, limits.memory))
        if raw == OVER:
            # Not earlier: what is in the pipe while the program runs could be read by it.
            with contextlib.suppress(BrokenPipeError):
                os.write(word_writing, word.encode())
            raw = _report(reading, deadline, lambda: False)
    finally:
        _kill_group(process)
        os.close(reading)
        os.close(word_writing)
    return _outcome(raw, word, process.returncode)


def _remove(folder: str) -> None:
    """Removes a folder, each one in it moved up first: a program may nest more than recursion or open files reach."""
    folders = [folder]
    for each in folders:
        with os.scandir(each) as found:
            entries = list(found)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.path, 0o700)
                folders.append(os.path.join(folder, secrets.token_hex(8)))
                os.rename(entry.path, folders[-1])
            else:
                os.unlink(entry.path)
    for each in reversed(folders):
        os.rmdir(each)


def _start(folder: str, report: int, words: int, limits: Limits) -> subprocess.Popen[bytes]:
    seconds = math.ceil(limits.seconds) + 1
    return subprocess.Popen(
        [sys.executable, "-I", "-B", str(_RUNNER), str(report), str(words), str(limits.memory), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
        pass_fds=(report, words),
        start_new_session=True,
    )


def _send(process: subprocess.Popen[bytes], source: str) -> None:
    assert process.stdin is not None  # it is a pipe, by _start
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(source.encode("utf-8", errors="surrogatepass"))  # half a character is the program's own fault


def _report(reading: int, deadline: float, too_much: Callable[[], bool]) -> bytes | None:
    """What the process reports: empty if it ends without a word, None if its time is over."""
    waiting = select.poll()  # which any descriptor's number suits
    waiting.register(reading, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if waiting.poll(min(left, _LOOK_SECONDS) * 1000):
            return os.read(reading, _LONGEST_REPORT)
        if too_much():
            return _TOO_MUCH
    return None


def _has_more(folder: str, most: int) -> bool:
    """Whether a folder has more than so many bytes, a block for each name in it; what just went is passed over."""
    folders, size = [folder], 0
    for each in folders:
        with contextlib.suppress(OSError), os.scandir(each) as found:
            for entry in found:
                size += 4096 + 512 * entry.stat(follow_symlinks=False).st_blocks
                if size > most:
                    return True
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    return False


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """The process leads its own session, so nothing that it started is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _outcome(raw: bytes | None, word: str, status: int) -> Outcome:
    if raw is None:
        return Outcome("timed out")
    report = json_object(raw)
    if report is None:
        return Outcome("killed", f"exit status {status}")
    if report.get("word") == word:
        return Outcome("passed")
    name = str(report.get("error", "no report"))
    if name == "MemoryError":
        return Outcome("out of memory")
    return Outcome("failed", f"{name}: {report.get('message', '')}")
