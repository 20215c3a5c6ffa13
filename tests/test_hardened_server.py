"""What strangers, browsers and broken workers do to the server: limits before the key, names, encodings, its log."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncGenerator, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.server.options import read_api_keys
from pipelines.server.process.messages import Load
from pipelines.server.record import LONGEST_FIELD, Log, Record
from pipelines.server.stall import Stall
from weights.errors import UserError

if TYPE_CHECKING:
    from running_server import RunningServer

NEEDED = ("fastapi", "zmq", "httptools")
pytestmark = pytest.mark.skipif(any(find_spec(name) is None for name in NEEDED), reason="needs the extra serve")

COMPLETIONS = "/v1/completions"
START = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def send(port: int, data: bytes) -> bytes:
    """What comes back until the server closes, or says nothing for a second."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(10)
        answer = b""
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                answer += piece
        except (TimeoutError, ConnectionError):
            pass
        return answer


HEADS = {
    "one long header": START + b"X: " + b"a" * 2_000_000,
    "many headers": START + b"X: y\r\n" * 160_000,
    "a long path": b"GET /" + b"a" * 2_000_000,
    "a long name": START + b"a" * 2_000_000,
    "after a body in chunks": CHUNKED + b"0\r\nX: " + b"a" * 2_000_000,
    "line ends before a request": b"\r\n" * 500_000,
    "an extension of a chunk": CHUNKED + b"1;" + b"a" * 2_000_000,
}


@pytest.mark.parametrize("data", HEADS.values(), ids=HEADS)
def test_a_head_that_is_too_large_costs_nothing(server: RunningServer, data: bytes) -> None:
    started = time.monotonic()
    answer = send(server.port, data)
    # The connection may be reset while the rest is still being sent, and takes the answer with it.
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 "), answer[:200]
    assert time.monotonic() - started < 5
    assert server.get("/health").status_code == 200


def test_a_head_just_over_the_limit_is_told_so(server: RunningServer) -> None:
    answer = send(server.port, START + b"X: y\r\n" * 101 + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "head_too_large"
    assert b" 200 OK" in send(server.port, START + b"X: y\r\n" * 90 + b"Connection: close\r\n\r\n")
    assert send(server.port, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("pieces", [1, 2, 7])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_wish_for_another_protocol_is_ignored(server: RunningServer, chunked: bool, pieces: int) -> None:
    """Java's HttpClient adds it to every request, so JetBrains' editors and langchain4j send it."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    body = json.dumps({"prompt": "def f(", "max_tokens": 2, "temperature": 0}).encode()
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    first = head + upgrade + length + b"\r\n\r\n" + framed
    get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    requests = [first, first, get + upgrade + b"\r\n", get + b"Connection: close\r\n\r\n"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        answers = b""
        for request in requests:
            step = -(-len(request) // pieces)
            for start in range(0, len(request), step):
                connection.sendall(request[start : start + step])
                time.sleep(0.02)
        while data := connection.recv(1 << 16):
            answers += data
    assert answers.count(b"HTTP/1.1 200 OK") == len(requests), answers
    assert answers.count(b'"text_completion"') == 2


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_what_follows_a_request_that_closes_is_not_read(server: RunningServer, version: str) -> None:
    head = f"POST /v1/completions HTTP/{version}\r\nHost: localhost\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n"
    body = json.dumps({"prompt": "def f(", "max_tokens": 1})
    answer = send(server.port, f"{head}Content-Length: {len(body)}\r\n\r\n{body}junk".encode())
    assert answer.startswith(b"HTTP/1.1 200 OK"), answer


def test_answers_under_way_are_whole_before_what_cannot_be_read(server: RunningServer) -> None:
    """A refusal in the middle of a stream would be taken for a part of it."""
    body = json.dumps({"prompt": "def f(", "max_tokens": 600, "ignore_eos": True, "stream": True}).encode()
    stream = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(stream)
        answer = connection.recv(1 << 16)
        connection.sendall(START + b"\r\n" + b"nonsense\r\n\r\n")
        while data := connection.recv(1 << 16):
            answer += data
    first, _, second = answer.partition(b"data: [DONE]")
    assert (first.count(b"HTTP/1.1 "), second.count(b"HTTP/1.1 200 OK"), answer.count(b"invalid_http")) == (1, 1, 0)
    assert second.endswith(b'{"status":"ok"}')


def test_a_client_that_leaves_while_another_request_waits_behind_is_no_error(server: RunningServer) -> None:
    body = json.dumps({"prompt": "def f(", "max_tokens": 900, "ignore_eos": True, "stream": True}).encode()
    stream = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(stream)
        connection.recv(1 << 16)
        connection.sendall(stream)
        time.sleep(0.1)
    server.wait_idle()
    assert "Traceback" not in server.log


def test_nobody_is_asked_for_a_body_that_is_refused(server: RunningServer) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
    started = time.monotonic()
    assert send(server.port, head + b"Content-Length: 99999999\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - started < 4


def test_a_body_that_was_asked_for_is_taken_in_before_it_is_refused(server: RunningServer) -> None:
    """Closed before that, the connection would lose the answer."""
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 100 ")
        for _ in range(32):
            connection.sendall(b"80000\r\n%b\r\n" % (b" " * 0x80000))
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_leaves_before_its_body_is_whole_has_left(server: RunningServer) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"

    def left() -> float:
        ended = 'replit_requests_total{route="/v1/completions",status="499"}'
        lines = server.get("/metrics").text.splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith(ended))

    before = left()
    for framing in (b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head + framing)
            time.sleep(0.1)
    deadline = time.monotonic() + 10
    while left() < before + 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_client_that_says_no_more_is_told_about_the_server(server: RunningServer, method: str) -> None:
    """`printf ... | nc`, of some kinds, in a container's health check."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(f"{method} /health HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(1 << 16):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK"), answer
    assert body == (b'{"status":"ok"}' if method == "GET" else b"")


def test_very_many_wishes_for_another_protocol(server: RunningServer) -> None:
    wish = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(wish * 2000)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 404 ")
    assert server.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
        (b'{"prompt": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001, "nested too deeply"),
        (b'{"prompt": "x", "seed": ' + b"1" * 5000 + b"}", "too many digits"),
    ],
    ids=["lists", "objects", "digits"],
)
def test_json_that_python_does_not_read(server: RunningServer, body: bytes, reason: str) -> None:
    answer = server.post(COMPLETIONS, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_json")
    assert reason in error["message"]


def test_bodies_may_be_compressed(server: RunningServer) -> None:
    def post(content: bytes, encoding: str) -> Any:
        import httpx

        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        return httpx.post(server.url + COMPLETIONS, content=content, headers=headers, timeout=60)

    body = json.dumps({"prompt": "def f(", "max_tokens": 2, "temperature": 0}).encode()
    plain = server.post(COMPLETIONS, body).json()["choices"]
    assert post(gzip.compress(body), "gzip").json()["choices"] == plain
    assert post(body, "identity").json()["choices"] == plain
    assert post(gzip.compress(b'{"prompt": "' + bytes(50_000_000)), "gzip").status_code == 413
    for content, encoding, status, message in (
        (body, "gzip", 400, "the body is no gzip stream"),
        (gzip.compress(body)[:-9], "gzip", 400, "it is cut off"),
        (gzip.compress(body) + b"x", "gzip", 400, "bytes after its end"),
        (body, "br", 415, "expected gzip, deflate or none"),
        (body, "gzip, gzip", 415, "expected gzip, deflate or none"),
    ):
        answer = post(content, encoding)
        assert answer.status_code == status, (encoding, answer.text)
        assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "10.0.0.1", "127.0.0.1.evil.example", "[::2]:1"])
def test_a_page_elsewhere_cannot_give_its_name_to_a_server_without_a_key(server: RunningServer, host: str) -> None:
    answer = server.get("/health", headers={"Host": host})
    assert answer.status_code == 403
    assert "--allowed-host" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "app.localhost", "127.8.0.1:80", "[::1]:8000", "LOCALHOST."]
)
def test_names_of_this_machine_are_answered(server: RunningServer, host: str) -> None:
    assert server.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("spelled", ["127.1", "::ffff:127.0.0.1"])
def test_a_loopback_address_in_another_spelling_is_one(spelled: str) -> None:
    from running_server import RunningServer

    with RunningServer("--host", spelled, "--max-length", "256") as server:
        server.wait_ready()
        assert server.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
        for host in ("127.0.0.1", f"[{spelled}]:80" if ":" in spelled else spelled):
            assert server.get("/v1/models", headers={"Host": host}).status_code == 200
        assert "warning" not in server.log


def test_allowed_hosts_and_programs_without_one() -> None:
    from pipelines.server.http.api_error import ApiError
    from pipelines.server.http.hosts import check_host

    check_host(None, ())
    check_host("Build.example:8000", ("build.example",))
    check_host("anything", ("*",))
    check_host("0.0.0.0:8000", ())  # what a server prints that listens everywhere, and clients are given
    check_host("[::]:8000", ())
    with pytest.raises(ApiError, match="other.example"):
        check_host("other.example", ("build.example",))


@pytest.mark.parametrize("options", [{"host": "0.0.0.0"}, {"api_keys": ("k",)}, {"host": "127.0.0.1"}], ids=str)
def test_allowed_hosts_count_wherever_they_are_given(options: dict[str, Any]) -> None:
    from pipelines.server.http.api_error import ApiError
    from pipelines.server.http.guard import Guard
    from pipelines.server.options import ServeOptions

    def asked(host: bytes, **more: Any) -> None:
        service: Any = SimpleNamespace(options=ServeOptions(**options, **more))
        scope = {"headers": [(b"host", host), (b"authorization", b"Bearer k")], "path": "/v1/models"}
        Guard(service, service)._admit(scope, service)

    asked(b"a.example:8000", allowed_hosts=("a.example",))
    asked(b"localhost", allowed_hosts=("a.example",))
    with pytest.raises(ApiError, match="answers to names of this machine and of --allowed-host only"):
        asked(b"evil.example", allowed_hosts=("a.example",))
    if options != {"host": "127.0.0.1"}:
        asked(b"evil.example")


@pytest.mark.parametrize("key", ["", " ", "a b", "a\n", "\t", "\x1b[31m"])
def test_a_key_that_guards_nothing_is_refused(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPLIT_API_KEY", raising=False)
    with pytest.raises(UserError, match="expected a key of printable characters"):
        read_api_keys(key, None)
    if "\x00" not in key and key != "a\n":
        monkeypatch.setenv("REPLIT_API_KEY", key)
        with pytest.raises(UserError, match="expected a key of printable characters"):
            read_api_keys(None, None)


def test_a_key_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPLIT_API_KEY", raising=False)
    assert read_api_keys(None, None) == ()
    file = tmp_path / "key"
    file.write_text("sesame\n")
    assert read_api_keys(None, str(file)) == ("sesame",)
    file.write_bytes("\ufeffsesame\r\nmellon\r\n".encode())
    assert read_api_keys(None, str(file)) == ("sesame", "mellon")
    file.write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        read_api_keys(None, str(file))
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "none", tmp_path, Path("/dev/zero"), tmp_path / "fifo"):
        with pytest.raises(UserError, match="--api-key-file"):
            read_api_keys(None, str(path))
    with pytest.raises(UserError, match="both given"):
        read_api_keys("x", str(file))


@pytest.fixture
def json_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """A log that took over what Python and libraries print, until the test ends."""
    for owner, name in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    log = Log("json")
    log.take_library_lines()
    yield log
    logging.captureWarnings(False)
    root.handlers = handlers
    root.setLevel(level)


def test_every_line_of_the_log_is_json_and_none_is_long(json_log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("uvicorn.error").warning("Invalid \x1b[31m HTTP request %s", "x" * 100_000)
    try:
        raise ValueError("y" * 100_000)
    except ValueError:
        logging.getLogger("asyncio").exception("it failed")
    record = Record("/v1/completions", user="u" * 100_000, note="two\nlines")
    json_log.request(record)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["warning", "error", "request"]
    assert len(lines[0]["what"]) < LONGEST_FIELD + 40
    assert "Traceback" in lines[1]["trace"]
    assert len(lines[1]["trace"]) < 9000
    assert lines[2]["user"] == "u" * LONGEST_FIELD + "... (100000 characters)"


LAST_WORDS = "import faulthandler, os, sys, warnings; faulthandler.enable(); print('out', flush=True); {}"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("os.write(2, b'native line')", ["native line"]),
        ("warnings.warn('odd')", ["UserWarning: odd"]),
        ("os.abort()", ["Fatal Python error: Aborted", "Current thread"]),
        ("1 / 0", ["Traceback", "ZeroDivisionError"]),
        ("os.write(2, b'\\xff' * 100_000)", ["(65536 characters)"]),
    ],
)
def test_what_a_worker_prints_is_told_line_by_line(
    code: str, told: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own lines, those of native code and its last words, and each line is JSON."""
    from pipelines.server.process import worker_process

    command: list[str] = []
    popen = subprocess.Popen

    def start(arguments: list[str], **more: Any) -> Any:
        command[:] = [sys.executable, "-c", LAST_WORDS.format(code)]
        return popen(command, **more)

    monkeypatch.setattr(worker_process.subprocess, "Popen", start)
    log = Log("json")

    async def ran() -> None:
        worker = worker_process.ModelWorker(lambda line: None, lambda line: log.event("worker", what=line))
        worker._process.wait(timeout=30)
        worker.stop()

    asyncio.run(ran())
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {line["message"] for line in lines} == {"worker"}
    found = "\n".join(line["what"] for line in lines)
    assert "out" in found
    for part in told:
        assert part in found


def test_what_keeps_a_server_from_starting_is_json_too() -> None:
    command = [sys.executable, "-m", "pipelines", "serve", "--log-format", "json", "--port", "0"]
    for options, reason in (
        (["--model", "/nowhere/x.gguf"], "/nowhere/x.gguf"),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
        (["--host", "a..b"], "cannot listen on a..b port 0: no such name can be"),
    ):
        ended = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False)
        (line,) = ended.stderr.splitlines()
        assert ended.returncode == 1
        assert json.loads(line)["message"] == "error"
        assert reason in json.loads(line)["reason"]


def test_what_nobody_catches_is_json(json_log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("odd", stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError("x"), None)
    warned, divided, uncaught = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert "UserWarning: odd" in warned["what"]
    assert "ZeroDivisionError" in divided["trace"]
    assert uncaught["what"] == "ValueError: x"


def test_a_worker_without_passes_is_stalled_only_while_something_waits() -> None:
    class Idle:
        load = Load(0, 0, 0, 0, 0)
        in_flight = 0

    worker = Idle()
    stall = Stall(worker, 0.05)
    time.sleep(0.1)
    assert not stall.look()
    worker.in_flight = 1
    assert not stall.look()
    time.sleep(0.1)
    assert stall.look()
    assert stall.is_stalled
    worker.load = Load(1, 0, 1, 1, 0)
    assert stall.look()
    assert not stall.is_stalled


def test_before_the_files_are_here_the_server_says_what_it_waits_for() -> None:
    from pipelines.server.starting import Starting, Waiting

    waiting = Waiting()
    waiting.begin("downloading owner/repository")
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Starting(waiting)({"type": "http", "path": "/health", "method": "GET", "headers": []}, receive, send))
    assert sent[0]["status"] == 503
    assert "downloading owner/repository, for 0 s" in sent[1]["body"].decode()


def test_a_failure_in_the_middle_of_a_stream_is_told_apart() -> None:
    from pipelines.server.http.api_error import worker_failed
    from pipelines.server.http.event_stream import EventStream

    async def events() -> AsyncGenerator[dict[str, Any] | str, None]:
        yield {"a": 1}
        raise worker_failed()

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    sent: list[Any] = []
    record = Record("/v1/completions", status=200)
    scope = {"type": "http", "path": "/v1/completions", "replit.record": record}
    asyncio.run(EventStream(events())(scope, receive, send))
    assert (sent[0]["status"], record.status) == (200, 503)
    assert record.note is not None
    assert record.note.startswith("in the middle of a stream: the model worker has failed")


def worker_of(server: RunningServer) -> int:
    pid = server.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker in /proc")
def test_a_stopped_and_a_killed_worker(tmp_path: Path) -> None:
    import httpx
    from running_server import RunningServer

    (tmp_path / "key").write_text("sesame\n")
    options = [
        "--api-key-file",
        str(tmp_path / "key"),
        "--stall-timeout",
        "2",
        "--log-format",
        "json",
        "--max-length",
        "1024",
    ]
    with RunningServer(*options) as server:
        key = {"Authorization": "Bearer sesame"}
        stranger = send(server.port, CHUNKED + b"ffffff\r\n" + b"a" * 1_000_000)
        assert b" 401 " in stranger or stranger == b""
        server.wait_ready()
        pid = worker_of(server)
        body = {"prompt": "x = [", "max_tokens": 900, "ignore_eos": True, "stream": True, "user": "u" * 5000}
        with httpx.stream("POST", server.url + COMPLETIONS, json=body, headers=key, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            os.kill(pid, signal.SIGSTOP)
            server.wait_for_log(r"stalled", 20)
            health = server.get("/health")
            assert health.status_code == 503
            assert health.json()["error"]["code"] == "worker_stalled"
            assert "replit_worker_stalled 1.0" in server.get("/metrics", headers=key).text
            assert server.post(COMPLETIONS, {"prompt": "x"}, headers=key).status_code == 503
            os.kill(pid, signal.SIGKILL)
            rest = "".join(lines)
        assert "worker_failed" in rest
        assert server.process.wait(timeout=30) == 1
        told = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
        (ended,) = [line for line in told if line["message"] == "request" and "in the middle" in line.get("note", "")]
        assert ended["status"] == 503
        assert len(ended["user"]) < 300
        assert "killed by SIGKILL" in told[-1]["reason"]
        assert len(told) == len(server.log.splitlines()), server.log
