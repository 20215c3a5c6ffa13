"""Who waits for a long prompt in `replit --serve`: another client's stream, a request after a cancellation.

    python -m benchmarks.waiting MODEL.gguf

Reads prompts of 3 000 tokens and says: the tokens a second alone and beside a stream, the longest gap between two
tokens of that stream, and when a one-token request that follows a cancelled prompt is answered. With `--restart`, also
when a prompt of 2 000 tokens that the killed server had read is answered by the next one, after its readiness. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from itertools import pairwise
from typing import Any

import httpx
import numpy as np

from benchmarks.typing import PORT, Server


def prompt(tokens: int, seed: int) -> list[int]:
    """Ids that no other prompt begins with."""
    return np.random.default_rng(seed).integers(300, 8000, tokens).tolist()


def command(model: str, *more: str) -> list[str]:
    """The server's."""
    start = "from pipelines.commands.cli import main; main()"
    return [
        sys.executable, "-c", start, "--serve", "--weight-path", model, "--port", PORT, "--max-length", "4096",
        "--max-cache-batch-size", "4", "--draft", "none", *more,
    ]  # fmt: skip


def read_seconds(server: Server, tokens: int, seed: int) -> float:
    """Seconds to the first token after a prompt."""
    return server.ask("/completion", {"prompt": prompt(tokens, seed), "n_predict": 1, "temperature": 0})[1]


def gaps(server: Server, stop: threading.Event, found: list[float]) -> None:
    """Streams until told to stop; the times of its tokens."""
    body: dict[str, Any] = {
        "prompt": prompt(16, 99),
        "n_predict": 900,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    body["return_tokens"] = True  # an event for each
    client = httpx.Client(base_url=server.client.base_url, timeout=300)
    with client.stream("POST", "/completion", json=body) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                found.append(time.perf_counter())
            if stop.is_set():
                return


def beside_a_stream(server: Server, tokens: int) -> tuple[float, float]:
    """Seconds for a prompt beside a stream, and the stream's longest gap meanwhile."""
    stop, times = threading.Event(), []
    thread = threading.Thread(target=gaps, args=(server, stop, times))
    thread.start()
    while len(times) < 5:
        time.sleep(0.01)
    begun = time.perf_counter()
    seconds = read_seconds(server, tokens, 2)
    ended = time.perf_counter()
    stop.set()
    thread.join()
    during = [begun, *(t for t in times if begun < t < ended), ended]
    return seconds, max(b - a for a, b in pairwise(during))


def after_a_cancellation(server: Server, tokens: int) -> float:
    """Seconds to the answer of a short request, sent when a client in the middle of a long prompt has gone."""
    body: dict[str, Any] = {"prompt": prompt(tokens, 3), "n_predict": 1}
    with suppress(httpx.ReadTimeout):
        httpx.post(f"{server.client.base_url}/completion", json=body, timeout=1.5)
    return server.ask("/completion", {"prompt": prompt(8, 4), "n_predict": 1})[1]


def restarted(model: str, tokens: int) -> dict[str, float | bool]:
    """Seconds to the first token of a known prompt after kill -9 and a start, and whether the text is the same."""
    body = {"prompt": prompt(tokens, 5), "n_predict": 8, "temperature": 0}
    with tempfile.TemporaryDirectory() as folder:
        server = Server("replit", command(model, "--cache-dir", folder))
        before = server.ask("/completion", body)[2]
        time.sleep(6)  # pages are written within five seconds
        server.close(signal.SIGKILL)
        server = Server("replit", command(model, "--cache-dir", folder))
        read, _, _ = server.ask("/completion", body | {"n_predict": 0})
        server.close(signal.SIGKILL)
        server = Server("replit", command(model, "--cache-dir", folder))
        _, seconds, _ = server.ask("/completion", body | {"n_predict": 1})
        after = server.ask("/completion", body)[2]
        server.close()
    return {"tokens_read": read, "seconds": round(seconds, 3), "same_text": before == after}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--tokens", type=int, default=3000)
    parser.add_argument("--restart", action="store_true")
    options = parser.parse_args()
    server = Server("replit", command(options.model))
    read_seconds(server, 600, 0)  # warm-up
    alone = read_seconds(server, options.tokens, 1)
    beside, gap = beside_a_stream(server, options.tokens)
    found: dict[str, Any] = {
        "alone_tokens_per_second": round(options.tokens / alone, 1),
        "beside_tokens_per_second": round(options.tokens / beside, 1),
        "longest_gap_seconds": round(gap, 3),
        "after_cancel_seconds": round(after_a_cancellation(server, options.tokens), 3),
    }
    server.close()
    if options.restart:
        found["restart"] = restarted(options.model, 2000)
    for name, value in found.items():
        print(f"{name:28} {value}")
    print(json.dumps({"model": options.model, "tokens": options.tokens, **found}))


if __name__ == "__main__":
    main()
