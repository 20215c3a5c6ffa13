"""A batch file is answered once, whole and the same however often the command is killed, and in flat memory.

    python -m benchmarks.batch_proof FOLDER whole --lines 2000
    python -m benchmarks.batch_proof FOLDER whole --lines 20000
    python -m benchmarks.batch_proof FOLDER killed --lines 20000
    python -m benchmarks.batch_proof FOLDER killed --lines 20000 --shards 4
    python -m benchmarks.batch_proof FOLDER killed --lines 20000 --ray

`whole` runs undisturbed and keeps the results in FOLDER, with the peak memory of the process. `killed` kills with -9 as
the results grow past ten random sizes, types the same command again each time, and compares. It can itself be ended and
typed again (`--seconds`). The model is nano. Each prints a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
KILLS = 10
_WORDS = ("def parse(", "class Node", "import ", "for line in ", "return ", "with open(", "x = [")


def write_requests(path: Path, lines: int, tokens: int) -> Path:
    """Greedy and drawn ones in turn; each prompt once."""
    if not path.exists():
        with path.open("w") as file:
            for i in range(lines):
                prompt = f"# {_WORDS[i % 5]}{i}\n{_WORDS[i % 7]}"
                body = {"prompt": prompt, "max_tokens": tokens, "temperature": i % 2}
                line = {"custom_id": f"line-{i}", "method": "POST", "url": "/v1/completions", "body": body}
                file.write(json.dumps(line) + "\n")
    return path


def comparable(paths: list[Path]) -> list[str]:
    """The sorted results without the time of their making. Raises where a line is not whole or an id is twice."""
    results = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    assert all(path.read_bytes().endswith(b"\n") for path in paths)
    assert len({result["custom_id"] for result in results}) == len(results), "a line has two results"
    for result in results:
        result["response"]["body"].pop("created")
    return sorted(json.dumps(result, sort_keys=True) for result in results)


def start(source: Path, output: Path, more: list[str]) -> subprocess.Popen[bytes]:
    """The command as it is typed."""
    command = [sys.executable, "-m", "pipelines", "batch", str(source), str(output), "--quiet", *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment)


def run_whole(source: Path, output: Path, more: list[str]) -> dict[str, Any]:
    """Undisturbed; seconds and peak memory."""
    output.unlink(missing_ok=True)
    begun = time.monotonic()
    process = start(source, output, more)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"status {status}"
    seconds = time.monotonic() - begun
    return {"seconds": round(seconds, 1), "peak_mib": round(usage.ru_maxrss / 1024, 1)}


def run_killed(source: Path, output: Path, more: list[str], moments: list[float], end: float) -> int | None:
    """Kills as the output passes each of the sizes; how often, None where the time is over before the last line is."""
    kills = 0
    while True:
        process = start(source, output, more)
        due = next((size for size in moments if size > size_of(output)), None)
        while process.poll() is None and time.monotonic() < end and (due is None or size_of(output) < due):
            time.sleep(0.01)
        if process.poll() is not None:
            assert process.returncode == 0, f"status {process.returncode}"
            return kills
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        if time.monotonic() >= end:
            return None


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def main() -> None:
    """Runs a step and prints what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("step", choices=["whole", "killed"])
    parser.add_argument("--lines", type=int, default=20000)
    parser.add_argument("--tokens", type=int, default=4, help="of an answer")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--seconds", type=float, default=1e9, help="end by then; the same line goes on")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    name = f"{options.lines}-{options.tokens}"
    source = write_requests(options.folder / f"in-{name}.jsonl", options.lines, options.tokens)
    whole = options.folder / f"whole-{name}.jsonl"
    found: dict[str, Any] = {name: getattr(options, name) for name in ("step", "lines", "tokens", "shards", "ray")}
    if options.step == "whole":
        found |= run_whole(source, whole, ["--ray"] if options.ray else [])
    else:
        found |= kill_all(options, source, whole, name)
    print(json.dumps(found))


def kill_all(options: argparse.Namespace, source: Path, whole: Path, name: str) -> dict[str, Any]:
    """All shards one after the other, killed ten times together."""
    end = time.monotonic() + options.seconds
    chosen = random.Random(options.lines + options.shards)
    size = size_of(whole) / options.shards
    places = [chosen.uniform(0, options.shards) for _ in range(KILLS)]
    outputs, kills = [], 0
    for shard in range(options.shards):
        output = options.folder / f"killed-{name}-{shard + 1}-of-{options.shards}{'-ray' * options.ray}.jsonl"
        moments = sorted((place - shard) * size for place in places if shard <= place < shard + 1)
        more = [f"--shard={shard + 1}/{options.shards}", *(["--ray"] if options.ray else [])]
        killed = run_killed(source, output, more, moments, end)
        if killed is None:
            return {"done": False, "results": output.read_bytes().count(b"\n"), "shard": shard + 1}
        outputs.append(output)
        kills += killed
    results = comparable(outputs)
    return {"done": True, "kills_now": kills, "results": len(results), "identical": results == comparable([whole])}


if __name__ == "__main__":
    main()
