"""Options of `--serve` that change a whole server: address, key, body size, prefix cache, patience at the end."""

from __future__ import annotations

import signal
import threading
import time
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from running_server import RunningServer
from test_options import NANO
from tiny_model import write_model

from pipelines.server.options import ServeOptions

NEEDED = ("fastapi", "zmq", "httptools")
pytestmark = pytest.mark.skipif(any(find_spec(name) is None for name in NEEDED), reason="needs the extra serve")

KEY = {"Authorization": "Bearer sesame"}
OPTIONS = [
    "--host",
    "127.0.0.2",
    "--api-key",
    "sesame",
    "--max-body-size",
    "4000",
    "--no-prefix-caching",
]
SAMPLING = ["--temperature", "0", "--top-k", "7", "--max-new-tokens", "64", "--stop", "@@", "--stop", "##"]
HEALED = ["--token-healing", "on"]
LOADING = ["--weight-path", NANO, "--quantization-encoding", "bfloat16", "--threads", "1", "--mmap"]
LONG = {"prompt": "x = [", "max_tokens": 1900, "ignore_eos": True, "temperature": 0}


def test_a_server_with_all_of_them() -> None:
    times = ["--max-length", "2048", "--shutdown-timeout", "1"]
    with RunningServer(*OPTIONS, *SAMPLING, *HEALED, *LOADING, *times, "--max-cache-batch-size", "8") as server:
        assert server.url.startswith("http://127.0.0.2:")
        server.wait_ready()
        assert server.get("/v1/models").status_code == 401
        assert server.get("/v1/models", headers=KEY | {"Host": "behind.a.proxy"}).status_code == 200
        assert server.post("/v1/completions", {"prompt": "x" * 5000}, headers=KEY).status_code == 413
        twice = {"prompt": "def f(x):\n    return x\n" * 60, "max_tokens": 1}
        for _ in range(2):
            assert server.post("/v1/completions", twice, headers=KEY).status_code == 200
        told = server.get("/props", headers=KEY).json()["default_generation_settings"]["params"]
        shown = {name: told[name] for name in ("temperature", "top_k", "n_predict", "max_tokens", "stop", "top_p")}
        assert shown == {
            "temperature": 0, "top_k": 7, "n_predict": 64, "max_tokens": 64, "stop": ["@@", "##"], "top_p": 0.95,
        }  # fmt: skip
        parameters = server.post("/api/show", {}, headers=KEY).json()["parameters"].splitlines()
        assert sorted(line.split(maxsplit=1) for line in parameters) == [
            ["num_predict", "64"], ["stop", '"##"'], ["stop", '"@@"'], ["temperature", "0.0"], ["top_k", "7"],
        ]  # fmt: skip
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


INFILL = {"input_prefix": "import os\r\n\r\ndef f(", "input_suffix": ")\r\n", "n_predict": 6, "temperature": 0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that knows no fill-in-the-middle."""
    return str(write_model(tmp_path_factory.mktemp("tiny") / "model"))


def test_a_model_without_fill_in_the_middle_continues(tiny: str) -> None:
    with RunningServer("--model", tiny, "--served-model-name", "tiny", "--threads", "1") as server:
        server.wait_ready()
        assert "room max_length=512 sequences=" in server.log  # the model's own limit
        answer = server.post("/infill", INFILL)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-fill-in-the-middle"].startswith("no")
        assert answer.json()["fill_in_the_middle"] is False
        assert "import os\n\ndef f(" in answer.json()["prompt"]
        assert "\n" not in answer.json()["content"].replace("\r\n", "")
        warm = server.post("/infill", {"input_extra": [{"text": "x = 1\n"}], "n_predict": 0})
        assert warm.json()["tokens_evaluated"] > 2
        for route in ("/v1/completions", "/v1/fim/completions", "/api/generate"):
            body = {"prompt": "def f(", "suffix": ")\n", "max_tokens": 4, "stream": False}
            answer = server.post(route, body)
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-fill-in-the-middle"].startswith("no")
        assert server.post("/api/show", {}).json()["capabilities"] == ["completion", "insert"]


def test_a_model_is_called_by_text_whatever_bytes_its_path_has() -> None:
    assert ServeOptions(weight_path="m\udcffdel.gguf").name == "m\ufffddel.gguf"


@pytest.mark.parametrize("path", ["%2Ftmp%2Fm.gguf", "/tmp/m.gguf", "tmp/m.gguf:latest"])
def test_a_model_that_is_called_after_its_path_is_found(path: str) -> None:
    """What stands in an address loses the slash at its beginning."""
    from urllib.parse import unquote

    from pipelines.server.http.api_error import ApiError
    from pipelines.server.service import Service

    service: Any = SimpleNamespace(options=ServeOptions(weight_path="/tmp/m.gguf"))
    Service.find_model(service, unquote(path))
    with pytest.raises(ApiError, match="does not exist here"):
        Service.find_model(service, "tmp/n.gguf")


def test_an_empty_name_is_no_other_model() -> None:
    """llama.vim sends it by default."""
    from pipelines.server.http.api_error import ApiError
    from pipelines.server.service import Service

    service: Any = SimpleNamespace(options=ServeOptions(check_model=True))
    service.find_model = lambda name: Service.find_model(service, name)
    for name in (None, "", "nano"):
        Service.check_model(service, name)
    with pytest.raises(ApiError, match="does not exist here"):
        Service.check_model(service, "other")


def test_strictness_is_an_option(tiny: str) -> None:
    options = ["--strict-fields", "--check-model", "--strict-infill", "--open-metrics", "--api-key", "KEY"]
    with RunningServer("--model", tiny, "--served-model-name", "tiny", "--threads", "1", *options) as server:
        server.wait_ready()
        body = {"prompt": "x", "max_tokens": 1}
        for headers in ({"Authorization": "bearer KEY"}, {"Authorization": "BEARER  KEY"}, {"X-Api-Key": "KEY"}):
            assert server.post("/v1/completions", body, headers=headers).status_code == 200
        assert server.get("/metrics").status_code == 200
        assert server.get("/v1/models").status_code == 401
        key = {"X-Api-Key": "KEY"}
        unknown = server.post("/v1/completions", body | {"stream": False, "nwo": "x"}, headers=key)
        assert unknown.status_code == 400
        assert unknown.json()["error"] == {
            "message": "the field 'nwo' is unknown or not supported; leave it out", "type": "invalid_request_error",
            "param": "nwo", "code": "unknown_parameter",
        }  # fmt: skip
        other = server.post("/v1/completions", body | {"model": "other"}, headers=key)
        assert (other.status_code, other.json()["error"]["code"]) == (404, "model_not_found")
        assert server.post("/api/generate", {"prompt": "x", "model": "tiny:latest"}, headers=key).status_code == 200
        for name, status in (("tiny", 200), ("other", 404)):  # vLLM's clients send it here too
            counted = server.post("/tokenize", {"prompt": "x", "model": name}, headers=key)
            assert counted.status_code == status, counted.text
        refused = server.post("/infill", INFILL, headers=key)
        assert refused.status_code == 501
        assert "no fill-in-the-middle tokens" in refused.json()["error"]["message"]
