"""Two replicas behind HAProxy, with the configuration of the documentation; one is killed under load."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from running_server import RunningServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy (Debian's package)"),
]
CONFIG = Path(__file__).parent.parent / "docs/examples/haproxy.cfg"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture
def replicas() -> Iterator[list[RunningServer]]:
    servers = [RunningServer("--max-length", "512", "--port", str(free_port())) for _ in range(2)]
    try:
        yield [server.wait_ready() for server in servers]
    finally:
        for server in servers:
            server.stop()


@pytest.fixture
def balancer(replicas: list[RunningServer], tmp_path: Path) -> Iterator[str]:
    port = free_port()
    text = CONFIG.read_text().replace("bind :8080", f"bind 127.0.0.1:{port}")
    for old, server in zip((8001, 8002), replicas, strict=True):
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{server.port}")
    file = tmp_path / "haproxy.cfg"
    file.write_text(text)
    process = subprocess.Popen(["haproxy", "-db", "-f", str(file)])
    time.sleep(1.5)
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


def ask(url: str, number: int, stream: bool) -> tuple[str, int]:
    """How a request ended: "whole", or "cut" where its stream broke after it had begun; and the tokens."""
    body = {"prompt": f"# {number}\nx = [", "max_tokens": 60, "temperature": 0, "ignore_eos": True, "stream": stream}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=120) as response:
        assert response.status_code == 200, response.read()
        begun = 0
        try:
            for line in response.iter_lines():
                if not stream:
                    return "whole", int(json.loads(line)["usage"]["completion_tokens"])
                if line == "data: [DONE]":
                    return "whole", begun
                begun += line.startswith("data: {")
        except httpx.TransportError:
            assert begun, "nothing had begun, so it should have been retried"
        return "cut", begun


def served(server: RunningServer) -> int:
    return server.log.count("route=/v1/completions status=200")


def test_one_of_two_is_killed_under_load(replicas: list[RunningServer], balancer: str) -> None:
    def kill() -> None:
        while served(replicas[0]) < 3:
            time.sleep(0.05)
        replicas[0].process.kill()

    killer = threading.Thread(target=kill)
    with ThreadPoolExecutor(12) as pool:
        killer.start()
        ends = list(pool.map(lambda i: ask(balancer, i, stream=i % 2 == 0), range(120)))
    killer.join()
    assert replicas[0].process.poll() is not None
    whole = [end for end, _ in ends if end == "whole"]
    print(f"{len(whole)} of {len(ends)} whole, the others were streams of the killed replica that had begun")
    assert len(ends) == 120
    assert all(end == "whole" for i, (end, _) in enumerate(ends) if i % 2)  # without a stream none is lost
    assert len(whole) >= 120 - 12  # at most one open stream a client
    assert served(replicas[1]) > 0
    assert ask(balancer, 999, stream=True)[0] == "whole"
