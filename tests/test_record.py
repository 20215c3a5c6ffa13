"""A request's record: the figures of several sequences together."""

from __future__ import annotations

import pytest

pytest.importorskip("prometheus_client", reason="needs the extra serve")

from pipelines.server.metrics import Metrics
from pipelines.server.record import Record


def test_the_queue_time_is_that_of_the_first_start() -> None:
    record = Record("/v1/completions", created=100.0)
    for started in (103.0, 101.5, 109.0, 0.0):  # 0: a sequence whose start was not told
        record.token(started)
    assert record.started == 101.5
    metrics = Metrics()
    record.observe(metrics)
    assert metrics.registry.get_sample_value("replit_queue_seconds_sum") == 1.5
    assert record.fields()["queue_ms"] == 1500.0
