"""MAX's own server with this package's architecture: `max serve --custom-architectures`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipelines.pipeline import Pipeline, load

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow  # MAX compiles a sampler, and imports for 20 s


@pytest.fixture(scope="module")
def max_server(nano: Pipeline) -> Iterator[str]:
    pytest.importorskip("zmq", reason="needs the extra serve")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w") as log:
        shutil.copy(ROOT / "weights/embedded/nano.gguf", folder)
        config = {"architectures": ["MPTForCausalLM"], "model_type": "mpt"}
        Path(folder, "config.json").write_text(json.dumps(config))
        command = [
            str(Path(sys.executable).parent / "max"), "serve", "--model-path", folder,
            "--weight-path", f"{folder}/nano.gguf", "--custom-architectures", f"{ROOT}:replit.arch",
            "--devices", "cpu", "--quantization-encoding", "float32", "--max-length", "512",
            "--max-batch-size", "4", "--served-model-name", "nano", "--port", str(port),
        ]  # fmt: skip
        env = {**os.environ, "MAX_SERVE_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            wait_until_it_answers(f"http://127.0.0.1:{port}", process, Path(folder, "log"))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=60)


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 400
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}/v1/health", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


def test_greedy_text_is_the_command_lines(max_server: str) -> None:
    pipeline = load("nano", quantization_encoding="float32")
    for prompt in ("def fibonacci(n):", "class Stack:\n    def push(self, "):
        body = {"model": "nano", "prompt": prompt, "max_tokens": 16, "temperature": 0}
        answer = httpx.post(f"{max_server}/v1/completions", json=body, timeout=120).json()
        assert answer["choices"][0]["text"] == pipeline.generate(prompt, max_new_tokens=16).text
