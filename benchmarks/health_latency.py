"""How long `/health` takes while a server is given what costs it most: heads, and bodies whose text is long.

    python -m benchmarks.health_latency [URL]

Without URL a server with nano is started. Prints a table; the last line is JSON, in milliseconds.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import nullcontext
from http.client import HTTPConnection
from typing import Any

from benchmarks.fuzz_server import nano_server

MILLION = 1_000_000
# What to ask, by name: path and body, each under the server's limit of 4 MiB.
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "4 MB of prompt": ("/v1/completions", {"prompt": "def f(x): return x\n" * 190_000, "max_tokens": 1}),
    "3.6 MB of suffix": ("/v1/completions", {"prompt": "a", "suffix": "b = [1]\n" * 400_000, "max_tokens": 1}),
    "4 MB before a gap": ("/infill", {"input_prefix": "1a" * 2 * MILLION, "input_suffix": "b", "n_predict": 1}),
    "800 kB of 1a1a at /tokenize": ("/tokenize", {"content": "1a" * 400_000}),
    "40 000 files of context": (
        "/infill",
        {"input_prefix": "a", "input_suffix": "b", "n_predict": 1, "input_extra": [{"text": "x = 1\n" * 10}] * 40_000},
    ),
    "a million brackets, to the end of the block": (
        "/v1/completions",
        {"prompt": "{" * MILLION, "suffix": "}", "completion": "block", "max_tokens": 1},
    ),
    "a million token ids": ("/v1/completions", {"prompt": [5] * MILLION, "max_tokens": 1}),
    "a million ids at /detokenize": ("/detokenize", {"tokens": [5] * MILLION}),
    "30 000 messages": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 60}] * 30_000}),
    "30 000 prompts": ("/v1/completions", {"prompt": ["x" * 60] * 30_000, "max_tokens": 1}),
    "800 kB of 1a1a at /tokenize, with pieces": ("/tokenize", {"content": "1a" * 400_000, "with_pieces": True}),
    "a million empty lists": ("/v1/completions", {"prompt": "x", "zz": {"a": [[]] * MILLION}}),
    "200 000 fields": ("/v1/completions", {"prompt": "x", **{f"field{i}": 0 for i in range(200_000)}}),
    "70 000 parts of messages": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 1000}] * 70, "max_tokens": 1},
    ),
    "8 000 parts of messages, under the limit": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 2000}] * 4, "max_tokens": 1},
    ),
    "2 000 texts of 2 kB with a bias": (
        "/completion", {"prompt": "x", "n_predict": 1, "logit_bias": [["1a" * 1000, 1.0]] * 2000}
    ),
    "2 000 ids with a bias": ("/completion", {"prompt": "x", "n_predict": 1, "logit_bias": [[5, 1.0]] * 2000}),
    "800 000 ids in 2 000 prompts": ("/v1/completions", {"prompt": [[5] * 400] * 2000, "max_tokens": 1}),
    "160 000 long numbers": ("/v1/completions", {"prompt": "x", "zz": {"a": [1.2345678901234567e-300] * 160_000}}),
    "500 000 log-probabilities": (
        "/completion", {"prompt": "x", "n_predict": 16, "ignore_eos": True, "n_probs": 1000, "n": 32}
    ),
    "a completion that begins to repeat its suffix": (
        "/v1/completions",
        {"prompt": "x", "suffix": "-" * 60_000, "max_tokens": 400, "temperature": 0, "logit_bias": {"3884": 100}},
    ),
    "128 completions to the end of their block": (
        "/v1/completions",
        {"prompt": "int f() { g(1); }\n" * 2_500, "suffix": "}", "completion": "block", "max_tokens": 1, "n": 128},
    ),
    "16 stop strings of 200 kB": (
        "/v1/completions", {"prompt": "x = [", "stop": [" " * 200_000 + c for c in "abcdefghijklmnop"]}
    ),
}  # fmt: skip


def latencies(url: str, path: str, body: dict[str, Any], times: int = 2) -> tuple[int, float, float]:
    """The status, how long the request took and the longest `/health` beside it, in milliseconds."""
    content = json.dumps(body).encode()
    host = url.partition("://")[2]
    longest, running = 0.0, True

    def watch() -> None:
        nonlocal longest
        connection = HTTPConnection(host, timeout=60)
        while running:
            started = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            longest = max(longest, (time.perf_counter() - started) * 1000)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        started = time.perf_counter()
        for _ in range(times):
            connection = HTTPConnection(host, timeout=120)
            connection.request("POST", path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            while answer.read(1 << 16):
                pass
        spent = (time.perf_counter() - started) * 1000 / times
    finally:
        running = False
        watcher.join()
    return answer.status, spent, longest


def main() -> None:
    """See the module."""
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    with nullcontext(given) if given else nano_server("--max-length", "1024") as url:
        found = {}
        print("| what | status | its answer, ms | longest /health, ms |\n|---|---|---|---|")
        for name, (path, body) in BODIES.items():
            found[name] = latencies(url, path, body)
            print("| {} | {} | {:.0f} | {:.0f} |".format(name, *found[name]))
        print(json.dumps({name: round(longest, 1) for name, (_, _, longest) in found.items()}))


if __name__ == "__main__":
    main()
