"""Running the server: keys, origins, a full queue, clients that leave, ends wanted and unwanted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from running_server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable

NEEDED = ("fastapi", "zmq", "httptools")
pytestmark = pytest.mark.skipif(any(find_spec(name) is None for name in NEEDED), reason="needs the extra serve")

KEY = {"Authorization": "Bearer secret"}
LONG = {"prompt": "x = [", "max_tokens": 900, "ignore_eos": True, "temperature": 0}


@pytest.fixture(scope="module")
def guarded() -> Iterator[RunningServer]:
    """One sequence at a time, two may wait; a key, an origin, JSON logs."""
    options = [
        "--max-length", "1024", "--max-cache-batch-size", "1", "--max-queue-size", "2", "--cors-origin",
        "https://editor.example", "--log-format", "json", "--served-model-name", "code",
    ]  # fmt: skip
    with RunningServer(*options, env={"REPLIT_API_KEY": "secret"}) as server:
        loading = server.get("/health")
        assert loading.status_code == 503
        assert loading.headers["retry-after"] == "2"
        assert loading.json()["error"]["code"] == "model_loading"
        yield server.wait_ready()


def test_the_key_is_asked_for_but_for_health(guarded: RunningServer) -> None:
    assert guarded.get("/health").status_code == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret-not"}):
        answer = guarded.get("/v1/models", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
    assert guarded.get("/v1/models", headers=KEY).json()["data"][0]["id"] == "code"
    assert guarded.get("/metrics").status_code == 401


def test_only_named_origins_may_call(guarded: RunningServer) -> None:
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    ours = httpx.options(f"{guarded.url}/v1/completions", headers=preflight | {"Origin": "https://editor.example"})
    assert ours.status_code == 200
    assert ours.headers["access-control-allow-origin"] == "https://editor.example"
    others = httpx.options(f"{guarded.url}/v1/completions", headers=preflight | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in others.headers


def test_a_full_queue_is_429(guarded: RunningServer) -> None:
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(guarded.post("/v1/completions", LONG | {"speculative": False}, headers=KEY).status_code)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: metric(guarded, "replit_running") + metric(guarded, "replit_queue_depth") == 3)
    refused = guarded.post("/v1/completions", LONG, headers=KEY)
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert guarded.get("/slots?fail_on_no_slot=1", headers=KEY).json()["error"]["type"] == "unavailable_error"
    assert [slot["is_processing"] for slot in guarded.get("/slots", headers=KEY).json()] == [True]
    for thread in threads:
        thread.join()
    assert statuses == [200] * 3
    wait_for(lambda: metric(guarded, "replit_running") == 0)
    assert guarded.get("/slots?fail_on_no_slot=1", headers=KEY).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(guarded: RunningServer, stream: bool) -> None:
    before = metric(guarded, "replit_generated_tokens_total")
    leave(guarded, stream)
    wait_for(lambda: metric(guarded, "replit_running") + metric(guarded, "replit_queue_depth") == 0, seconds=3)
    assert metric(guarded, "replit_cache_pages_used") == 0
    assert metric(guarded, "replit_generated_tokens_total") - before < 900


def test_the_log_has_one_json_line_a_request(guarded: RunningServer) -> None:
    guarded.post("/v1/completions", {"prompt": "x", "max_tokens": 3, "user": "log test"}, headers=KEY)
    wait_for(lambda: '"log test"' in guarded.log)
    lines = [json.loads(line) for line in guarded.log.splitlines()]
    found = [line for line in lines if line.get("user") == "log test"]
    assert len(found) == 1
    assert found[0]["prompt_tokens"] == 1
    assert {"id", "route", "status", "generated_tokens", "queue_ms", "first_token_ms", "total_ms"} <= set(found[0])


def test_metrics_of_a_request(guarded: RunningServer) -> None:
    body = {"prompt": [7] * 300, "max_tokens": 5, "ignore_eos": True}
    counted = {
        "replit_prompt_tokens_total": 300, "replit_generated_tokens_total": 5, "replit_requests_total": 1,
        "replit_queue_seconds_count": 1, "replit_time_to_first_token_seconds_count": 1,
        "replit_time_per_output_token_seconds_count": 1, "replit_prefix_cache_hit_tokens_total": 299,
    }  # fmt: skip
    guarded.post("/v1/completions", body, headers=KEY)
    route = 'route="/v1/completions",status="200"'
    before = {name: metric(guarded, name, route) for name in counted}
    guarded.post("/v1/completions", body, headers=KEY)
    wait_for(lambda: metric(guarded, "replit_requests_total", route) > before["replit_requests_total"])
    assert {name: metric(guarded, name, route) - before[name] for name in counted} == counted
    assert metric(guarded, "replit_cache_pages") > 8


def test_what_is_refused_before_its_route_is_counted_there(guarded: RunningServer) -> None:
    assert guarded.get("/v1/models").status_code == 401
    encoded = {**KEY, "Content-Encoding": "br"}
    assert httpx.post(guarded.url + "/v1/completions", content=b"{}", headers=encoded).status_code == 415
    assert guarded.get("/nowhere/at/all", headers=KEY).status_code == 404
    metrics = guarded.get("/metrics", headers=KEY).text
    for route, status in (("/v1/models", 401), ("/v1/completions", 415), ("unknown", 404)):
        assert f'replit_requests_total{{route="{route}",status="{status}"}}' in metrics
    assert "nowhere" not in metrics


def test_sigterm_lets_running_requests_finish(guarded: RunningServer) -> None:
    answers: list[Any] = []

    def ask() -> None:
        body = LONG | {"max_tokens": 600, "speculative": False}  # not over before anybody looks
        answers.append(guarded.post("/v1/completions", body, headers=KEY))

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: metric(guarded, "replit_running") == 1)
    assert guarded.stop(signal.SIGTERM) == 0
    thread.join()
    assert answers[0].status_code == 200
    assert answers[0].json()["usage"]["completion_tokens"] == 600


def test_a_dead_worker_ends_the_server_with_the_reason() -> None:
    with RunningServer("--max-length", "256") as server:
        server.wait_ready()
        workers = children(server.process.pid)
        assert len(workers) == 1
        os.kill(workers[0], signal.SIGSEGV)
        assert server.process.wait(timeout=20) == 1
        last = server.log.splitlines()[-1]
        assert re.fullmatch(r'[\d-]+T\S+ error reason="the model worker has died: killed by SIGSEGV"', last)


def test_sigterm_while_loading_and_errors_at_start() -> None:
    with RunningServer("--max-length", "256") as server:
        assert server.stop(signal.SIGTERM) == 0
    # What is known without the hub is said before it listens.
    with pytest.raises(AssertionError, match="--max-length is 99999; expected at most 2048"):
        RunningServer("--max-length", "99999")


@pytest.mark.parametrize(("timeout", "signals"), [("0", 1), ("0.5", 1), ("30", 2)])
def test_what_the_end_of_the_server_cuts_off_says_so(timeout: str, signals: int) -> None:
    """To its client, in the log and without a trace: nothing has failed."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(server.post("/v1/completions", LONG | {"max_tokens": 2000, "speculative": False, "n": 8}))

    with RunningServer("--shutdown-timeout", timeout, "--max-length", "2048", "--log-format", "json") as server:
        server.wait_ready()
        whole = threading.Thread(target=ask)
        whole.start()
        wait_for(lambda: metric(server, "replit_running") == 8)
        body = LONG | {"max_tokens": 2000, "speculative": False, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            started = time.monotonic()
            for _ in range(signals):
                server.process.send_signal(signal.SIGINT)
                time.sleep(0.2)
            told = [line for line in lines if line]
        whole.join()
        assert server.process.wait(timeout=30) == 0
        assert time.monotonic() - started < 5
        assert json.loads(told[-1].removeprefix("data: "))["error"]["code"] == "shutting_down", told[-1]
        assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (503, "shutting_down")
        log = [json.loads(line) for line in server.log.splitlines()]
        requests = [line for line in log if line["message"] == "request"]
        assert [line["status"] for line in requests if line["route"] == "/v1/completions"] == [503, 503]
        assert not [line for line in log if line["message"] == "error" or "trace" in line], server.log


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_worker_that_compiles_ends_with_its_server(tmp_path: Path, number: int) -> None:
    """Also with --cache-dir, for which a loaded worker is given time."""
    env = {"REPLIT_CACHE_DIR": str(tmp_path / "none yet")}
    with RunningServer("--max-length", "256", "--cache-dir", str(tmp_path / "pages"), env=env) as server:
        server.wait_for_log(" loading what=", 60)
        (worker,) = children(server.process.pid)
        started = time.monotonic()
        server.stop(number)
        wait_for(lambda: not Path(f"/proc/{worker}").exists(), seconds=5)
        assert time.monotonic() - started < 5
        assert "Traceback" not in server.log
        assert server.process.returncode == (0 if number == signal.SIGINT else -number)


def test_a_second_signal_ends_a_worker_that_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.server.process import worker_process
    from pipelines.server.process.messages import Ready

    popen = subprocess.Popen
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(worker_process.subprocess, "Popen", lambda command, **more: popen(sleeper, **more))
    worker = worker_process.ModelWorker(lambda line: None)
    worker.ready, worker._saves = Ready(), True
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    time.sleep(0.3)
    assert stopping.is_alive()  # what is ready gets its time
    worker.kill()
    stopping.join(timeout=5)
    assert not stopping.is_alive()


@pytest.mark.parametrize("nohup", [False, True])
def test_a_closed_terminal_ends_a_server_that_does_not_outlive_it(nohup: bool, tmp_path: Path) -> None:
    """As SIGTERM does: what its cache has not stored yet is stored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
    try:
        server = RunningServer("--max-length", "256", "--cache-dir", str(tmp_path))
    finally:
        signal.signal(signal.SIGHUP, before)
    with server:
        server.wait_ready()
        server.post("/v1/completions", {"prompt": [7] * 150, "max_tokens": 1})
        for pid in (*children(server.process.pid), server.process.pid):  # a terminal's signal comes to all
            os.kill(pid, signal.SIGHUP)
        if nohup:
            time.sleep(0.5)
            assert server.get("/health").status_code == 200
            assert "stopping" not in server.log
        else:
            assert server.process.wait(timeout=30) == 0
            assert "stopping" in server.log
            assert list(tmp_path.glob("*/*.page"))


def test_a_small_model_leaves_a_core_to_http(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.registry import open_model
    from pipelines.server.options import ServeOptions
    from pipelines.server.serve import with_threads

    files = open_model("nano", None, None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    assert with_threads(ServeOptions(), files).threads == 2
    assert with_threads(ServeOptions(threads=3), files).threads == 3
    assert with_threads(ServeOptions(device="gpu:0"), files).threads is None
    monkeypatch.setattr("pipelines.server.serve.SMALL_MODEL_BYTES", 1000)
    assert with_threads(ServeOptions(), files).threads is None


def test_another_python_in_the_path_is_not_asked(tmp_path: Path) -> None:
    """As where `replit` of an environment is called by its path, and the system's Python is another version."""
    other, called = tmp_path / "python3", tmp_path / "called"
    other.write_text(f"#!/bin/sh\ntouch {called}\necho 'wrong version' >&2\nexit 1\n")
    other.chmod(0o755)
    with RunningServer("--max-length", "256", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}) as server:
        server.wait_ready()
        assert "wrong version" not in server.log
    assert not called.exists()


def leave(server: RunningServer, stream: bool) -> None:
    """Asks for a long text, and hangs up while it is made."""
    request = {"json": LONG | {"stream": stream}, "headers": KEY}
    with httpx.Client() as client, contextlib.suppress(httpx.ReadTimeout):
        url = f"{server.url}/v1/completions"
        with client.stream("POST", url, timeout=httpx.Timeout(10, read=5 if stream else 0.3), **request) as answer:
            for _ in answer.iter_raw():
                return


def metric(server: RunningServer, name: str, labels: str = "") -> float:
    lines = server.get("/metrics", headers=KEY).text.splitlines()
    found = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found if "{" not in line or labels in line)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
