"""Edge values for every field of every route of a server, two at a time; what a request must never do is checked.

    python -m benchmarks.fuzz_server [URL] [--requests N] [--seed S]

The routes and their fields come from the server's own /openapi.json. No answer may be a 5xx other than 503, nor end
with an error of the server's in the middle; the server stays alive; a good client beside all this gets the same text
each time. Without URL a server with nano is started. The last line is JSON; exit status 1 for a finding.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import httpx

Schema = dict[str, Any]
# What each route is asked where a field is not tried; only names that a route has are sent.
BASE = {
    "prompt": "def f(x):\n    return", "input_prefix": "def f(x):\n    return", "input_suffix": "\n\nf(1)\n",
    "messages": [{"role": "user", "content": "x ="}], "content": "import os", "tokens": [5, 6], "model": "nano",
    "max_tokens": 3, "n_predict": 3, "options": {"num_predict": 3}, "input": "x", "stream": False,
}  # fmt: skip
# Numbers at which arithmetic, types and bounds change.
NUMBERS = (
    0, -0.0, 1, -1, 2, 0.5, 1.0, 1e-10, 1e-30, 1e-45, 5e-324, 1e-308, 1 - 1e-16, 1 + 1e-15, 10, 100, 3.4e38, 1e39,
    1e308, -1e308, math.nan, math.inf, -math.inf, 127, 128, 129, 255, 1023, 1024, 1025, 2**31 - 1, 2**31, -(2**31),
    2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, -2,
)  # fmt: skip
TEXTS = (
    "", " ", "\n", "\r\n", "\x00", "\x1b[2J", "\ud800", "\ufeff", "\u202e", "\u2028", "é", "日本", "🙂", "a" * 5000,
    "\n" * 3000, "(" * 3000, "1a" * 3000, "<|endoftext|>", "<fim_prefix>", "<fim_suffix><fim_middle>", "nano", "auto",
    "full", "line", "block", "on", "off", "json", "none", "user", "text", "../../etc/passwd", "%s%n", "0", "null",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [None], [""], ["a"], ["\n", ")"], [0], [-1], [8191], [8192], [5] * 1023,
    [5] * 1025, [[5], [6]], ["x", "y"], ["x"] * 40, ["x", 5], {"a": 1}, {"text": "x"}, [{"text": "x"}],
    [{"role": "user", "content": "x"}], [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
    {"include_usage": True}, [[5, 1.5]], {"5": -100}, {"5": 1e308}, [["a", False]],
)  # fmt: skip
_SERVER_ERROR = re.compile(r"internal error|server_error|sequence_failed")


@dataclass
class Route:
    """A route that takes JSON, and the schemas of its fields."""

    path: str
    fields: dict[str, Schema]

    def base(self) -> dict[str, Any]:
        """A request that is answered."""
        return {name: value for name, value in BASE.items() if name in self.fields}


@dataclass
class Findings:
    """What went wrong, and how many answers there were of each status."""

    wrong: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)


def routes(document: dict[str, Any]) -> list[Route]:
    """All routes of an OpenAPI document that take a JSON body."""
    found = []
    for path, methods in document["paths"].items():
        body = methods.get("post", {}).get("requestBody")
        if body is not None:
            schema = _resolved(body["content"]["application/json"]["schema"], document)
            found.append(Route(path, {name: _resolved(part, document) for name, part in schema["properties"].items()}))
    return found


def _resolved(schema: Schema, document: dict[str, Any]) -> Schema:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def edges(schema: Schema) -> Iterator[Any]:
    """Values at the limits that a schema states, and just beyond them."""
    for branch in (schema, *schema.get("anyOf", ())):
        for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            if name in branch:
                limit = branch[name]
                yield from (
                    limit,
                    limit - 1,
                    limit + 1,
                    math.nextafter(limit, -math.inf),
                    math.nextafter(limit, math.inf),
                )
        yield from branch.get("enum", ())
        if "const" in branch:
            yield branch["const"]


def kinds(schema: Schema) -> set[str]:
    """The JSON types that a schema takes."""
    return {str(branch.get("type")) for branch in (schema, *schema.get("anyOf", ()))}


def value(schema: Schema, draw: random.Random) -> Any:
    """A value for a field: four times in five of a type that it takes, most of those at a limit."""
    taken = kinds(schema)
    limits = list(edges(schema))
    if draw.random() < 0.2:
        return draw.choice((*NUMBERS, *TEXTS, *OTHERS))
    if limits and draw.random() < 0.5:
        return draw.choice(limits)
    pools: list[tuple[Any, ...]] = []
    if taken & {"number", "integer"}:
        pools.append(NUMBERS)
    if "string" in taken:
        pools.append(TEXTS)
    if "boolean" in taken:
        pools.append((True, False))
    return draw.choice(draw.choice(pools or [OTHERS]))


def request(route: Route, draw: random.Random) -> dict[str, Any]:
    """A request with one field or two at their edges."""
    body = route.base()
    count = min(draw.choice((1, 2, 2, 2)), len(route.fields))
    for name in draw.sample(sorted(route.fields), count):
        body[name] = value(route.fields[name], draw)
    if draw.random() < 0.02:
        body[draw.choice(("\x1b[2J", "\ud800", "no such field" * 20, "")) + "x"] = draw.choice(OTHERS)
    return body


def ask(client: httpx.Client, url: str, route: Route, body: dict[str, Any], found: Findings) -> None:
    """Sends one request and judges the answer."""
    content = json.dumps(body).encode()  # NaN and Infinity as Python writes them, half characters as escapes
    shown = f"{route.path} {content[:2000].decode()}"
    try:
        answer = client.post(url + route.path, content=content, headers={"Content-Type": "application/json"})
    except httpx.HTTPError as error:
        found.wrong.append(f"{type(error).__name__}: {shown}")
        return
    found.statuses[str(answer.status_code)] += 1
    if answer.status_code >= 500 and answer.status_code != 503:
        found.wrong.append(f"{answer.status_code} {answer.text[:300]}: {shown}")
    elif answer.status_code == 200 and _SERVER_ERROR.search(answer.text[-2000:]):
        found.wrong.append(f"{answer.text[-300:]}: {shown}")


def good_client(url: str, running: threading.Event, found: Findings) -> None:
    """Asks for the same text all the time."""
    body = {"prompt": "def fibonacci(n):\n", "max_tokens": 12, "temperature": 0}
    first = None
    with httpx.Client(timeout=120) as client:
        while not running.is_set():
            try:
                answer = client.post(f"{url}/v1/completions", json=body)
                if answer.status_code in (429, 503):
                    continue
                text = answer.json()["choices"][0]["text"]
            except (httpx.HTTPError, KeyError, ValueError) as error:
                found.wrong.append(f"the good client: {type(error).__name__}: {error}")
                return
            if text != (first := first or text):
                found.wrong.append(f"the good client: {text!r} instead of {first!r}")
            time.sleep(0.05)


def fuzz(url: str, count: int, seed: int, workers: int = 4) -> Findings:
    """Sends `count` requests, `workers` at a time."""
    found = Findings()
    known = routes(httpx.get(f"{url}/openapi.json", timeout=60).json())
    draw = random.Random(seed)
    # Routes with many fields have more to try.
    weights = [len(route.fields) for route in known]
    jobs = [(route, request(route, draw)) for route in draw.choices(known, weights, k=count)]
    stop = threading.Event()
    beside = threading.Thread(target=good_client, args=(url, stop, found))
    beside.start()
    try:
        with httpx.Client(timeout=120) as client, ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda job: ask(client, url, *job, found), jobs))
    finally:
        stop.set()
        beside.join()
    if httpx.get(f"{url}/health", timeout=60).status_code != 200:
        found.wrong.append("the server is not healthy at the end")
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with nullcontext(options.url) if options.url else nano_server("--max-length", "512") as url:
        started = time.perf_counter()
        found = fuzz(url, options.requests, options.seed)
        for line in found.wrong[:20]:
            print(line)
        told = {"requests": options.requests, "seed": options.seed, "seconds": round(time.perf_counter() - started)}
        print(json.dumps(told | {"statuses": dict(sorted(found.statuses.items())), "wrong": len(found.wrong)}))
    sys.exit(1 if found.wrong else 0)


@contextmanager
def nano_server(*options: str) -> Iterator[str]:
    """The address of a server with nano on a free port, which ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipelines", "serve", "--port", str(port), *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def wait_until_healthy(url: str) -> None:
    """Returns once a server is ready. Raises SystemExit after two minutes."""
    for _ in range(600):
        try:
            if httpx.get(url + "/health").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"no server answers at {url}")


if __name__ == "__main__":
    main()
