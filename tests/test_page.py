"""The page's routes: its files, policy and headers, the key, `--no-page`, the prompt; and the files that ship."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from browser import PAGE_SOURCES

from docs.picture import PICTURE, digest, recorded

if TYPE_CHECKING:
    from running_server import RunningServer

NEEDED = ("fastapi", "zmq", "httptools")
needs_server = pytest.mark.skipif(any(find_spec(name) is None for name in NEEDED), reason="needs the extra serve")

FILES = ("page.js", "page.css", "icon.svg", "LICENSES.txt")
BEFORE = "def add(a, b):\n    return"
AFTER = "\n\n\nprint(add(1, 2))\n"


def test_the_document_is_for_one_time_and_runs_nothing_inline(server: RunningServer) -> None:
    first, second = server.get("/"), server.get("/")
    assert first.status_code == 200
    assert first.headers["content-type"] == "text/html; charset=utf-8"
    assert first.headers["cache-control"] == "no-store"
    policies = [dict(answer.headers)["content-security-policy"] for answer in (first, second)]
    nonces = [re.search(r"'nonce-([\w-]{20,})'", policy)[1] for policy in policies]  # type: ignore[index]
    assert nonces[0] != nonces[1]
    assert f'nonce="{nonces[0]}"' in first.text
    assert "{{" not in first.text
    for directive in ("default-src 'none'", "script-src 'self';", "base-uri 'none'", "frame-ancestors 'none'"):
        assert directive in policies[0]
    assert "unsafe" not in policies[0]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", first.text)
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", first.text)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_sent_once(server: RunningServer, name: str) -> None:
    whole = server.get(f"/page/{name}", headers={"Accept-Encoding": "identity"})
    packed = server.get(f"/page/{name}", headers={"Accept-Encoding": "gzip"})
    assert whole.status_code == packed.status_code == 200
    assert "content-encoding" not in whole.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert whole.content == packed.content  # httpx unpacks
    assert packed.headers["x-content-type-options"] == "nosniff"
    assert packed.headers["cache-control"] == "no-cache"
    again = server.get(f"/page/{name}", headers={"If-None-Match": packed.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert server.get(f"/page/{name}", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/page/main.ts", "/page/index.html", "/page/../serve.py", "/page/%2e%2e%2fserve.py", "/page/"]
)
def test_nothing_else_is_sent(server: RunningServer, path: str) -> None:
    assert server.get(path).status_code == 404


def test_the_state_without_a_key(server: RunningServer) -> None:
    assert server.get("/page/state").json() == {"model": "ready", "key": "none"}


def test_the_metrics_say_what_is_served(server: RunningServer) -> None:
    line = next(line for line in server.get("/metrics").text.splitlines() if line.startswith("replit_model_info"))
    assert 'model="nano"' in line
    assert 'encoding="bfloat16"' in line
    assert 'device="cpu"' in line
    assert re.search(r'machine="[^"]+, \d+ cores?"', line)


def test_the_prompt_is_the_one_that_is_read(server: RunningServer) -> None:
    """As many tokens as `/v1/completions` says it read, and the code in it as it was."""
    body = {"prompt": BEFORE, "suffix": AFTER, "max_tokens": 8}
    told = server.post("/page/prompt", body).json()
    read = server.post("/v1/completions", body).json()["usage"]["prompt_tokens"]
    assert told["tokens"] == read
    assert told["truncated"] is False
    markers = [part["text"] for part in told["segments"] if part["marker"]]
    texts = [part["text"] for part in told["segments"] if not part["marker"]]
    assert markers == ["end of text", "suffix", "prefix", "middle"]  # nano's order
    assert texts == [AFTER, BEFORE.removesuffix(told["healing"])]
    assert told["healing"] == " return"  # for "returns" begins so


def test_the_prompt_of_a_continuation(server: RunningServer) -> None:
    told = server.post("/page/prompt", {"prompt": BEFORE}).json()
    usage = server.post("/v1/completions", {"prompt": BEFORE, "max_tokens": 1}).json()["usage"]
    assert told["segments"] == [{"text": BEFORE, "tokens": usage["prompt_tokens"], "marker": False}]
    assert told["healing"] == ""
    healed = server.post("/page/prompt", {"prompt": BEFORE, "token_healing": True}).json()
    assert healed["segments"][0]["text"] + healed["healing"] == BEFORE
    assert healed["tokens"] == told["tokens"]


def test_a_prompt_that_is_cut_says_so(server: RunningServer) -> None:
    told = server.post("/page/prompt", {"prompt": "x = 1\n" * 2000, "suffix": AFTER, "max_tokens": 64}).json()
    assert told["truncated"] is True
    assert told["tokens"] <= 1024 - 64
    assert told["segments"][-2]["text"].startswith("x = 1\n")


@pytest.fixture(scope="module")
def without_page() -> Iterator[RunningServer]:
    from running_server import RunningServer

    with RunningServer("--no-page", "--api-key", "secret") as server:
        yield server.wait_ready()


@needs_server
def test_no_page_leaves_it_out(without_page: RunningServer) -> None:
    import httpx

    key = {"Authorization": "Bearer secret"}
    heartbeat = without_page.get("/")  # of Ollama's clients, which ask for the head alone
    assert (heartbeat.status_code, heartbeat.text) == (200, "Ollama is running")
    assert httpx.head(without_page.url).status_code == 200
    for path in ("/page/state", "/page/page.js"):
        assert without_page.get(path).status_code == without_page.get(path, headers=key).status_code == 404
    assert without_page.post("/page/prompt", {"prompt": "x"}, headers=key).status_code == 404
    assert without_page.get("/v1/models").status_code == 401


@pytest.fixture(scope="module")
def with_key() -> Iterator[RunningServer]:
    from running_server import RunningServer

    with RunningServer("--api-key", "secret") as server:
        loading = server.get("/page/state").json()
        assert loading == {"model": "loading", "key": "missing"}
        assert server.get("/").status_code == 200  # before the model is there
        yield server.wait_ready()


@needs_server
def test_the_page_needs_no_key_and_its_requests_do(with_key: RunningServer) -> None:
    for path in ("/", *(f"/page/{name}" for name in FILES)):
        assert with_key.get(path).status_code == 200
    assert with_key.post("/page/prompt", {"prompt": "x"}).status_code == 401
    for given, found in (("Bearer wrong", "wrong"), ("Bearer secret", "right"), ("", "missing")):
        assert with_key.get("/page/state", headers={"Authorization": given}).json() == {"model": "ready", "key": found}


def test_the_files_that_ship_are_what_the_sources_give() -> None:
    """Types are checked too. Without node or the packages of the lock file there is nothing to build with."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    if not (PAGE_SOURCES / "node_modules").is_dir():
        pytest.skip("needs the page's packages: npm ci --prefix page")
    done = subprocess.run(["npm", "run", "check"], cwd=PAGE_SOURCES, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_picture_shows_the_page_that_ships() -> None:
    assert recorded(PICTURE.read_bytes()) == digest(), "run: python -m docs.picture"
    assert PICTURE.stat().st_size < 150_000


def test_the_guesses_are_told_with_the_usage(server: RunningServer) -> None:
    """A text that repeats itself is guessed from itself; OpenAI has names for what was right and what was not."""
    body = {"prompt": "x = [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2,", "max_tokens": 40, "temperature": 0}
    told = server.post("/v1/completions", body).json()["usage"]["completion_tokens_details"]
    assert told["accepted_prediction_tokens"] > 10
    assert told["rejected_prediction_tokens"] >= 0
