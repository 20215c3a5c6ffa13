"""Options of `--serve` that change a whole server: address, key, body size, prefix cache, patience at the end."""

from __future__ import annotations

import signal
import threading
import time
from importlib.util import find_spec

import httpx
import pytest
from running_server import RunningServer
from test_options import NANO

NEEDED = ("fastapi", "zmq", "httptools")
pytestmark = pytest.mark.skipif(any(find_spec(name) is None for name in NEEDED), reason="needs the extra serve")

KEY = {"Authorization": "Bearer sesame"}
OPTIONS = ["--host", "127.0.0.2", "--api-key", "sesame", "--max-body-size", "4000", "--no-prefix-caching"]
LOADING = ["--weight-path", NANO, "--quantization-encoding", "bfloat16", "--threads", "1", "--mmap"]
LONG = {"prompt": "x = [", "max_tokens": 1900, "ignore_eos": True, "temperature": 0}


def test_a_server_with_all_of_them() -> None:
    times = ["--max-length", "2048", "--shutdown-timeout", "1"]
    with RunningServer(*OPTIONS, *LOADING, *times, "--max-cache-batch-size", "8") as server:
        assert server.url.startswith("http://127.0.0.2:")
        server.wait_ready()
        assert server.get("/v1/models").status_code == 401
        assert server.post("/v1/completions", {"prompt": "x" * 5000}, headers=KEY).status_code == 413
        twice = {"prompt": "def f(x):\n    return x\n" * 60, "max_tokens": 1}
        for _ in range(2):
            assert server.post("/v1/completions", twice, headers=KEY).status_code == 200
        metrics = server.get("/metrics", headers=KEY).text
        assert "replit_prefix_cache_hit_tokens_total 0.0" in metrics
        cut_off(server)


def cut_off(server: RunningServer) -> None:
    """More work than a second's, which SIGTERM leaves no more than that."""
    failed: list[bool] = []

    def ask() -> None:
        try:
            failed.append(server.post("/v1/completions", LONG | {"n": 8}, headers=KEY).status_code != 200)
        except httpx.HTTPError:
            failed.append(True)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    started = time.monotonic()
    server.stop(signal.SIGTERM)
    assert time.monotonic() - started < 15
    for thread in threads:
        thread.join()
    assert any(failed)
