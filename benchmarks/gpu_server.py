"""`replit --serve` under many clients, for benchmarks/gpu.py: starts a server, sends requests, counts tokens."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import numpy as np

COMMAND = [sys.executable, "-c", "from pipelines.commands.cli import main; main()"]


def measure(path: str, device: str, clients: int, tokens_in: int, tokens_out: int, rounds: int) -> dict[str, Any]:
    """Tokens a second of `clients` that each send `rounds` requests one after the other, and times to first token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--serve", "--port", str(port), "--model", path, "--max-length", str(tokens_in + tokens_out)]
    options += ["--max-cache-batch-size", str(clients), "--max-queue-size", str(clients)]
    options += ["--use-gpu", device.partition(":")[2] or "0"] if device.startswith("gpu") else []
    process = subprocess.Popen([*COMMAND, *options])
    try:
        _wait(process, port)
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda c: _request(port, c, tokens_in, tokens_out), range(clients)))  # warm-up
            start = time.perf_counter()
            jobs = [pool.submit(_client, port, client, tokens_in, tokens_out, rounds) for client in range(clients)]
            firsts = [first for job in jobs for first in job.result()]
        seconds = time.perf_counter() - start
    finally:
        process.terminate()
        process.wait(60)
    return {
        "tokens_per_s": clients * rounds * tokens_out / seconds,
        "first_token_s_median": median(firsts),
        "requests": clients * rounds,
    }


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"the server did not answer on port {port} (exit status {process.poll()})")


def _client(port: int, client: int, tokens_in: int, tokens_out: int, rounds: int) -> list[float]:
    return [_request(port, client + 1000 * (turn + 1), tokens_in, tokens_out) for turn in range(rounds)]


def _request(port: int, seed: int, tokens_in: int, tokens_out: int) -> float:
    """Streams one completion of random ids; seconds to its first event. Raises if the server refuses or falls short."""
    ids = np.random.default_rng(seed).integers(0, 1000, tokens_in).tolist()
    body = {"prompt": ids, "max_tokens": tokens_out, "ignore_eos": True, "temperature": 0, "stream": True}
    body["stream_options"] = {"include_usage": True}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    start = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"the server answered {response.status}: {response.read(300)!r}")
    first, usage = 0.0, None
    for line in response:
        if line.startswith(b"data: {"):
            first = first or time.perf_counter() - start
            usage = json.loads(line[6:]).get("usage") or usage
    if not usage or usage["completion_tokens"] != tokens_out:
        raise RuntimeError(f"expected {tokens_out} tokens, found the usage {usage}")
    return first
