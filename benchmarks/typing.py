"""What a keystroke costs: tokens read again and latency, of `replit --serve` and of llama.cpp's server.

    python -m benchmarks.typing MODEL.gguf --files FOLDER --peer

Edits on the folder's Python files are replayed through the HTTP routes, keystroke by keystroke on one server and then
on the other. Traces: `growing` (/completion with all text before the cursor), `infill` (/infill with the lines around
it) and `ring` (the same with text of other files that changes now and then, each change announced by a warm-up). Places
that were not asked about before, and the first request after such a change, are counted apart. Eight new tokens each,
greedy. `--peer` needs the package xllamacpp. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from benchmarks.edits import Keystroke, chunks, record, source_files
from benchmarks.serving import ROOT

#: Stands for the server's port in its command.
PORT = "{port}"
_NEW_TOKENS = 8
_RING = 4  # chunks at the start; one more with every _RING_STEP keystrokes
_RING_STEP = 40
_PEER = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.n_ctx, params.n_parallel = int(sys.argv[3]), 1
params.cpuparams.n_threads = int(sys.argv[4])
params.n_cache_reuse = int(sys.argv[5])
if hasattr(params, 'spm_infill'):
    params.spm_infill = True  # suffix first; the package's builds of 2026 cannot set it
server = xllamacpp.Server(params)
while True:
    time.sleep(60)
"""


class Server:
    """One of the two, as a process."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        command = [port if word == PORT else word for word in command]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300)
        end = time.monotonic() + 300
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{name} did not start: {' '.join(command[:3])}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            return self.client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, route: str, body: dict[str, Any]) -> tuple[int, float, str]:
        """Tokens of the prompt that were read, seconds, and the text."""
        begun = time.perf_counter()
        answer = self.client.post(route, json=body)
        seconds = time.perf_counter() - begun
        assert answer.status_code == 200, answer.text
        found = answer.json()
        return found["timings"]["prompt_n"], seconds, found["content"]

    def close(self, number: int = signal.SIGTERM) -> None:
        """Ends the process and its group: a killed server's worker too."""
        os.killpg(self._process.pid, number)
        self._process.wait()


def requests(trace: str, files: list[Path], count: int, rng: random.Random) -> Iterator[tuple[str, Any, bool, bool]]:
    """Route, body, whether it only warms the cache, and whether the place is new."""
    common = {"n_predict": _NEW_TOKENS, "temperature": 0, "cache_prompt": True}
    others = chunks(files[len(files) // 2 :], rng)
    ring = [next(others) for _ in range(_RING)]
    number = 0
    for path in files[: len(files) // 2]:
        for keystroke in record(path.read_text("utf-8", "ignore"), count, rng):
            changed = trace == "ring" and number % _RING_STEP == _RING_STEP - 1
            if changed:
                ring = [*ring, next(others)][-16:]
                yield "/infill", infill(keystroke, ring) | common | {"n_predict": 0, "input_prefix": ""}, True, True
            number += 1
            if trace == "growing":
                yield "/completion", {"prompt": keystroke.before} | common, False, keystroke.elsewhere
            else:
                body = infill(keystroke, ring if trace == "ring" else [])
                yield "/infill", body | common, False, keystroke.elsewhere or changed


def infill(keystroke: Keystroke, ring: list[dict[str, str]]) -> dict[str, Any]:
    """llama.vim's request."""
    prefix, line, suffix = keystroke.window()
    return {"input_prefix": prefix, "prompt": line, "input_suffix": suffix, "input_extra": ring}


def replay(trace: str, servers: list[Server], files: list[Path], count: int, most: int) -> dict[str, Any]:
    """A row for each server."""
    read: dict[str, list[int]] = {server.name: [] for server in servers}
    new: dict[str, list[int]] = {server.name: [] for server in servers}
    seconds: dict[str, list[float]] = {server.name: [] for server in servers}
    for route, body, warms, elsewhere in requests(trace, files, count, random.Random(18)):
        if len(read[servers[0].name]) >= most:
            break
        for server in servers:
            tokens, spent, _ = server.ask(route, body)
            if not warms:
                (new if elsewhere else read)[server.name].append(tokens)
            if not elsewhere:
                seconds[server.name].append(spent)
    rows = {name: figures(read[name], new[name], seconds[name]) for name in read}
    for name, row in rows.items():
        print(
            f"{trace:8} {name:10} read again: median {row['median']:4.0f}  p95 {row['p95']:5.0f}  "
            f"most {row['most']:5d}  latency {row['ms']:7.1f} ms  "
            f"({row['keystrokes']} keystrokes; new places {row['new_median']:.0f} tokens)",
            flush=True,
        )
    if len(servers) == 2:
        ours, peer = (rows[server.name]["ms"] for server in servers)
        print(f"{trace:8} latency against llama.cpp's: {ours / peer:.2f}", flush=True)
    return rows


def figures(read: list[int], new: list[int], seconds: list[float]) -> dict[str, Any]:
    """What is reported."""
    ordered = sorted(read)
    return {
        "keystrokes": len(read),
        "median": statistics.median(ordered),
        "p95": ordered[int(0.95 * (len(ordered) - 1))],
        "most": ordered[-1],
        "over_300": sum(tokens > 300 for tokens in ordered),
        "new_median": statistics.median(new or [0]),
        "ms": round(1000 * statistics.median(seconds), 1),
        "p95_ms": round(1000 * sorted(seconds)[int(0.95 * (len(seconds) - 1))], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--files", type=Path, required=True, help="a folder with Python files")
    parser.add_argument("--traces", nargs="+", default=["growing", "infill", "ring"])
    parser.add_argument("--keystrokes", type=int, default=60, help="in each file (default 60)")
    parser.add_argument("--most", type=int, default=300, help="keystrokes of a trace (default 300)")
    parser.add_argument("--max-length", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2, help="llama.cpp's")
    parser.add_argument("--cache-reuse", type=int, default=0, help="llama.cpp's --cache-reuse")
    parser.add_argument("--peer", action="store_true", help="llama.cpp's server too, in turns")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has xllamacpp")
    options = parser.parse_args()
    length = str(options.max_length)
    start = "from pipelines.commands.cli import main; main()"
    commands = {
        "replit": [
            sys.executable, "-c", start, "--serve", "--weight-path", options.model, "--port", PORT,
            "--max-length", length, "--max-cache-batch-size", "2",
        ],
        "llama.cpp": [
            options.peer_python, "-c", _PEER, options.model, PORT, length, str(options.threads),
            str(options.cache_reuse),
        ],
    }  # fmt: skip
    files = [path for path in source_files(options.files) if path.stat().st_size < 3 * options.max_length]
    with ExitStack() as stack:
        servers = [Server(name, commands[name]) for name in commands if options.peer or name == "replit"]
        for server in servers:
            stack.callback(server.close)
        found = {t: replay(t, servers, files, options.keystrokes, options.most) for t in options.traces}
    print(json.dumps({"model": options.model, "max_length": options.max_length, "traces": found}))


if __name__ == "__main__":
    main()
