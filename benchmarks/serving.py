"""Time to first token, and tokens per second with 1 and 16 clients, of `replit --serve` and of llama.cpp's server.

    python -m benchmarks.serving --peer

Both servers run in turn on the same GGUF file and machine, with the same requests: streamed greedy completions of the
same length, end-of-text ignored. `--peer` needs the package xllamacpp, which holds llama.cpp's server. Warm-up is
excluded. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
PORT = 18080
_PEER = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 16 * 1024, 16, int(sys.argv[3])
server = xllamacpp.Server(params)
while True:
    time.sleep(60)
"""


@contextmanager
def running(command: list[str]) -> Iterator[float]:
    """A server process; yields the seconds from its start to the first 200 of /health."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    start = time.monotonic()
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{PORT}/health", timeout=1).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() - start > 300:
                raise SystemExit(f"{command[:3]} did not start")
            time.sleep(0.02)
        yield time.monotonic() - start
    finally:
        process.terminate()
        process.wait()


async def stream(client: httpx.AsyncClient, prompt: str, tokens: int) -> tuple[float, int]:
    """Seconds to the first piece of text, and the tokens that came."""
    body = {
        "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True, "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    start = time.monotonic()
    first, count = 0.0, 0
    async with client.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if not first and event["choices"] and event["choices"][0]["text"]:
                first = time.monotonic() - start
            if event.get("usage"):
                count = event["usage"]["completion_tokens"]
    return first, count


async def measure(clients: int, tokens: int) -> dict[str, Any]:
    """First-token times while idle, and the rates of one and of `clients` clients."""
    # A connection each: llama.cpp's server closes kept ones at moments of its own.
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=120, limits=limits) as client:
        await asyncio.gather(*(stream(client, f"# warm-up {i}\n", tokens) for i in range(clients)))
        firsts = [(await stream(client, f"def function_{i}(values):\n", 4))[0] for i in range(20)]
        one = [await rate(client, 1, tokens, run) for run in range(3)]
        many = [await rate(client, clients, tokens, run) for run in range(3)]
    alone, together = statistics.median(one), statistics.median(many)
    return {
        "first_token_ms": round(statistics.median(firsts) * 1000, 1),
        "tokens_per_s_1": round(alone, 1),
        f"tokens_per_s_{clients}": round(together, 1),
        "ratio": round(together / alone, 2),
    }


async def rate(client: httpx.AsyncClient, clients: int, tokens: int, run: int) -> float:
    """Tokens per second of all clients together."""
    start = time.monotonic()
    done = await asyncio.gather(
        *(stream(client, f"class Item{run}_{i}:\n    def __init__(", tokens) for i in range(clients))
    )
    return sum(count for _, count in done) / (time.monotonic() - start)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "weights/embedded/nano.gguf"))
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, help="of the engines [default: each server's own]")
    parser.add_argument("--peer", action="store_true", help="measure llama.cpp's server too")
    options = parser.parse_args()
    ours = [
        sys.executable, "-c", "from pipelines.commands.cli import main; main()", "--serve", "--model", options.model,
        "--port", str(PORT), "--max-length", "1024", "--max-cache-batch-size", str(options.clients),
    ]  # fmt: skip
    ours += ["--threads", str(options.threads)] if options.threads else []
    servers = {"replit": ours}
    if options.peer:
        servers["llama.cpp"] = [
            sys.executable,
            "-c",
            _PEER,
            options.model,
            str(PORT),
            str(options.threads or os.cpu_count()),
        ]
    results: dict[str, Any] = {"model": Path(options.model).name, "threads": options.threads, "cores": os.cpu_count()}
    for name, command in servers.items():
        with running(command) as start:
            found = asyncio.run(measure(options.clients, options.tokens))
        results[name] = {"start_s": round(start, 1), **found}
        print(f"{name:10} " + ", ".join(f"{key} {value}" for key, value in results[name].items()), flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
