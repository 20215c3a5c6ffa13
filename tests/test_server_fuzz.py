"""Edge values for every field of every route, and what costs a server most; benchmarks/ has more of both by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.fuzz_server import fuzz, routes
from benchmarks.health_latency import BODIES, latencies

if TYPE_CHECKING:
    from running_server import RunningServer


def test_no_edge_value_is_the_servers_fault(server: RunningServer) -> None:
    found = fuzz(server.url, 500, seed=20)
    assert not found.wrong, "\n".join(found.wrong[:5])
    assert found.statuses["200"] > 100, found.statuses
    assert found.statuses["400"] > 100, found.statuses
    assert "Traceback" not in server.log


def test_the_fuzzer_knows_every_route_with_a_body(server: RunningServer) -> None:
    found = {route.path: set(route.fields) for route in routes(server.get("/openapi.json").json())}
    assert {"/v1/completions", "/v1/chat/completions", "/completion", "/infill", "/tokenize"} <= set(found)
    assert {"temperature", "repeat_penalty", "stop", "n_indent"} <= found["/completion"]


def test_the_pair_that_once_overflowed(server: RunningServer) -> None:
    body = {"prompt": "x x x", "n_predict": 4, "temperature": 1e-30, "repeat_penalty": 1e-10}
    assert server.post("/completion", body).status_code in (200, 400)
    assert server.get("/health").status_code == 200


@pytest.mark.parametrize("name", BODIES)
def test_health_is_answered_beside_what_costs_most(server: RunningServer, name: str) -> None:
    """It took 5 to 15 s. The limit leaves room for a machine that has other work; docs/log.md has what was measured."""
    status, _, longest = latencies(server.url, *BODIES[name], times=1)
    assert status in (200, 400, 413)
    assert longest < 2000
