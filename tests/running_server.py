"""A server process for tests: started on a free port, asked over real sockets, ended by SIGTERM."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
START_TIMEOUT = 300.0  # a cold compile on a busy machine


class RunningServer:
    """`replit --serve` as a process. `url` is set at once, the model is there after `wait_ready`."""

    def __init__(self, *options: str, env: dict[str, str] | None = None) -> None:
        self.log_path = Path(tempfile.mkstemp(suffix=".log")[1])
        command = [
            sys.executable,
            "-c",
            "from pipelines.commands.cli import main; main()",
            "--serve",
            "--port",
            "0",
            *options,
        ]
        paths = {"PYTHONPATH": str(ROOT)}
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                command, stderr=log, stdout=log, env={**os.environ, **paths, **(env or {})}, cwd=tempfile.gettempdir()
            )
        self.url = self.wait_for_log(r"listening.* url=(\S+)|\"url\": \"([^\"]+)\"", 60)
        self.port = int(self.url.rsplit(":", 1)[1])

    @property
    def log(self) -> str:
        """All lines so far."""
        return self.log_path.read_text()

    def wait_for_log(self, pattern: str, seconds: float = 10) -> str:
        """What the pattern found in the log, or its first group that took part."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = re.search(pattern, self.log)
            if found:
                return next((group for group in found.groups() if group), found[0])
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} did not come:\n{self.log}")

    def wait_ready(self) -> RunningServer:
        """Returns once the model is loaded."""
        self.wait_for_log(r"\bready\b", START_TIMEOUT)
        return self

    def get(self, path: str, **more: Any) -> httpx.Response:
        """One GET."""
        return httpx.get(self.url + path, timeout=60, **more)

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        """One POST; `body` is JSON, or bytes as they are."""
        if isinstance(body, bytes):
            headers = {"Content-Type": "application/json"}
            return httpx.post(self.url + path, content=body, headers=headers, timeout=60, **more)
        return httpx.post(self.url + path, json=body, timeout=60, **more)

    def events(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The JSON events of a stream, without the closing [DONE]."""
        response = self.post(path, body | {"stream": True})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line]
        return [json.loads(line) for line in lines if line != "[DONE]"]

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.get("/metrics").text.splitlines()
        found = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
        assert found, f"no metric {name}"
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def wait_idle(self, seconds: float = 20) -> None:
        """Returns once nothing runs or waits any more."""
        end = time.monotonic() + seconds
        while self.metric("replit_running") + self.metric("replit_queue_depth") > 0:
            assert time.monotonic() < end, self.get("/metrics").text
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout=60)
        finally:
            self.process.kill()

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if "Traceback" in self.log:
            print(self.log, file=sys.stderr)
        self.log_path.unlink()
