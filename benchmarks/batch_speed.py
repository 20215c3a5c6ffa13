"""Tokens per second of a file of requests: `replit batch`, our own server with 16 clients, llama.cpp's with 16 slots.

    python -m benchmarks.batch_speed                                    # nano
    python -m benchmarks.random_model /tmp/4.gguf --layers 4 --encoding q4_0
    python -m benchmarks.batch_speed --model /tmp/4.gguf --lines 48 --peer
    python -m benchmarks.batch_speed --lines 512 --ray                  # and on a Ray cluster of this machine alone

All get the same file: prompts of 64 tokens, answers of 128, greedy, end-of-text ignored. `--peer` needs the package
xllamacpp, which holds llama.cpp's server. Loading is excluded: the batch's own rate, and of servers the time from the
first request to the last answer after a warm-up; on Ray, where actors start while the clock runs, the lines beyond the
first eighth by the seconds that they add. The engines take turns, `--rounds` times; medians. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serving import _PEER, PORT, ROOT, running

PROMPT, ANSWER, CLIENTS = 64, 128, 16


def requests(model: str, lines: int) -> list[dict[str, Any]]:
    """The bodies: ids of this project's own source."""
    from pipelines.registry import open_model

    text = "".join(path.read_text() for path in sorted((ROOT / "pipelines").rglob("*.py")))
    ids = open_model(model, None, None).tokenizer.encode(text)
    step = (len(ids) - PROMPT) // lines
    assert step > 0, f"{len(ids)} ids are too few for {lines} prompts"
    prompts = [ids[start : start + PROMPT] for start in range(0, lines * step, step)]
    return [{"prompt": prompt, "max_tokens": ANSWER, "temperature": 0, "ignore_eos": True} for prompt in prompts]


def batch(bodies: list[dict[str, Any]], model: str, more: list[str]) -> float:
    """Tokens a second as the command tells them."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        lines = [{"custom_id": str(i), "url": "/v1/completions", "body": body} for i, body in enumerate(bodies)]
        source.write_text("".join(json.dumps(line) + "\n" for line in lines))
        command = [sys.executable, "-m", "pipelines", "batch", str(source), str(output), "--model", model]
        command += ["--batch-size", str(CLIENTS), *more]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        told = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stderr
        results = [json.loads(line) for line in output.read_text().splitlines()]
    assert sum(result["response"]["body"]["usage"]["completion_tokens"] for result in results) == len(bodies) * ANSWER
    return float(re.findall(r"(\d+) tokens/s", told)[-1])


def batch_on_ray(bodies: list[dict[str, Any]], model: str) -> float:
    """Tokens a second without the start of a cluster and of its actors: of many lines less few."""
    few = bodies[: len(bodies) // 8]
    seconds = []
    for part in (few, bodies):
        begun = time.monotonic()
        batch(part, model, ["--ray"])
        seconds.append(time.monotonic() - begun)
    return (len(bodies) - len(few)) * ANSWER / (seconds[1] - seconds[0])


def server(bodies: list[dict[str, Any]], command: list[str]) -> float:
    """Tokens a second of clients that each send the next of the requests when they have their answer."""
    with running(command):
        return asyncio.run(_clients(bodies))


async def _clients(bodies: list[dict[str, Any]]) -> float:
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=300, limits=limits) as client:
        warm = [{"prompt": f"# warm-up {i}\n", "max_tokens": 16} for i in range(CLIENTS)]
        await asyncio.gather(*(client.post("/v1/completions", json=body) for body in warm))
        left, tokens = iter(bodies), 0

        async def one() -> int:
            done = 0
            for body in left:
                answer = await client.post("/v1/completions", json=body)
                assert answer.status_code == 200, answer.text
                done += answer.json()["usage"]["completion_tokens"]
            return done

        begun = time.monotonic()
        tokens = sum(await asyncio.gather(*(one() for _ in range(CLIENTS))))
        assert tokens == len(bodies) * ANSWER, f"{tokens} tokens"
        return tokens / (time.monotonic() - begun)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "weights/embedded/nano.gguf"))
    parser.add_argument("--lines", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peer", action="store_true", help="measure llama.cpp's server too")
    parser.add_argument("--ray", action="store_true", help="measure replit batch --ray too")
    options = parser.parse_args()
    bodies = requests(options.model, options.lines)
    ours = [sys.executable, "-m", "pipelines", "--serve", "--model", options.model, "--port", str(PORT),
            "--max-length", "1024", "--max-cache-batch-size", str(CLIENTS)]  # fmt: skip
    peer = [sys.executable, "-c", _PEER, options.model, str(PORT), str(os.cpu_count())]
    engines = {"replit batch": lambda: batch(bodies, options.model, []), "replit serve": lambda: server(bodies, ours)}
    if options.ray:
        engines["replit batch --ray"] = lambda: batch_on_ray(bodies, options.model)
    if options.peer:
        engines["llama.cpp"] = lambda: server(bodies, peer)
    found: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(options.rounds):
        for name, measure in engines.items():
            found[name].append(measure())
            print(f"{name:20} {found[name][-1]:8.1f} tokens/s", flush=True)
    medians = {name: round(statistics.median(rates), 1) for name, rates in found.items()}
    print(json.dumps({"model": Path(options.model).name, "lines": options.lines, "rounds": options.rounds, **medians}))


if __name__ == "__main__":
    main()
