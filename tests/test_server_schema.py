"""The server against its own OpenAPI document: whatever a client sends, no 5xx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

if TYPE_CHECKING:
    from running_server import RunningServer

schemathesis = pytest.importorskip("schemathesis", reason="needs the extra test")

ROUTES = ["/v1/completions", "/v1/chat/completions", "/infill", "/completion", "/tokenize", "/detokenize"]


@pytest.fixture(scope="session")
def api(server: RunningServer) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize("route", ROUTES)
def test_no_server_errors(api: Any, route: str) -> None:
    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=api[route]["POST"].as_strategy())
    def check(case: Any) -> None:
        shorten(case.body, route)
        response = case.call(timeout=120)
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    check()


def shorten(body: Any, route: str) -> None:
    """Long answers would only take time."""
    limits = {"/infill": "n_predict", "/completion": "n_predict", "/v1/chat/completions": "max_tokens"}
    if isinstance(body, dict):
        if route in limits and body.get("max_completion_tokens") is None and body.get(limits[route]) is None:
            body[limits[route]] = 4
        for name in ("n_predict", "max_tokens", "max_completion_tokens"):
            if type(body.get(name)) is int and body[name] > 4:
                body[name] = 4
