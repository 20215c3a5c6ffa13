"""Two thousand requests from 32 clients, a third dropped at random moments, some malformed, some over-long."""

from __future__ import annotations

import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from running_server import RunningServer

from pipelines.pipeline import Pipeline

pytestmark = pytest.mark.slow
REQUESTS, CLIENTS = 2000, 32
PROMPTS = [f"# case {i}\ndef function_{i}(values, other):\n    " for i in range(20)]


def resident(pid: int) -> int:
    """Resident kilobytes of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    fields = [Path(f"/proc/{p}/status").read_text() for p in [str(pid), *children]]
    return sum(int(found[1]) for text in fields if (found := re.search(r"VmRSS:\s+(\d+)", text)))


class Client:
    """Sends requests of all kinds, and checks every answer that it waits for."""

    def __init__(self, url: str, expected: dict[str, str]) -> None:
        self._url = url
        self._expected = expected

    def run(self, number: int) -> str:
        """The kind of request `number`, after it has ended as it should."""
        chance = random.Random(number)
        kind = chance.choices(["kept", "dropped", "malformed", "long"], [55, 33, 7, 5])[0]
        with httpx.Client(base_url=self._url, timeout=120) as client:
            getattr(self, kind)(client, chance)
        return kind

    def kept(self, client: httpx.Client, chance: random.Random) -> None:
        prompt = chance.choice(PROMPTS)
        while True:
            answer = client.post("/v1/completions", json={"prompt": prompt, "max_tokens": 16, "temperature": 0})
            if answer.status_code != 429:
                break
            time.sleep(float(answer.headers["retry-after"]) * chance.random())
        assert answer.json()["choices"][0]["text"] == self._expected[prompt]

    def dropped(self, client: httpx.Client, chance: random.Random) -> None:
        body = {
            "prompt": chance.choice(PROMPTS),
            "max_tokens": 200,
            "stream": chance.random() < 0.7,
            "ignore_eos": True,
        }
        try:
            timeout = httpx.Timeout(30, read=chance.random() * 0.5 + 0.001)
            with client.stream("POST", "/v1/completions", json=body, timeout=timeout) as answer:
                for count, _ in enumerate(answer.iter_raw()):
                    if count > chance.randrange(20):
                        break
        except httpx.ReadTimeout:
            pass

    def malformed(self, client: httpx.Client, chance: random.Random) -> None:
        body = chance.choice([b"{", b"[]", b'{"prompt": 3}', b'{"prompt": "x", "n": -1}', b'{"prompt": "x", "a": 1}'])
        answer = client.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400

    def long(self, client: httpx.Client, chance: random.Random) -> None:
        answer = client.post("/v1/completions", json={"prompt": [5] * chance.randrange(512, 5000)})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_soak(nano: Pipeline) -> None:
    expected = {prompt: nano.generate(prompt, max_new_tokens=16).text for prompt in PROMPTS}
    with RunningServer("--max-length", "512", "--max-queue-size", "40") as server:
        client = Client(server.wait_ready().url, expected)
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(client.run, range(200)))  # caches fill, memory settles
            server.wait_idle()
            before = resident(server.process.pid)
            kinds = list(pool.map(client.run, range(200, 200 + REQUESTS)))
        server.wait_idle()
        assert len(kinds) == REQUESTS
        assert kinds.count("dropped") > REQUESTS / 4
        assert server.metric("replit_cache_pages_used") == 0
        assert resident(server.process.pid) < before + 60_000
        assert "Traceback" not in server.log
        assert server.stop() == 0
