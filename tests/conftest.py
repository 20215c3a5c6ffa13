"""Compiled models shared by all tests: each costs half a minute when nothing is cached."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from models import RandomModel, random_model
from pipelines.pipeline import Pipeline, load
from replit.cpu.model import CpuModel

if TYPE_CHECKING:
    from running_server import RunningServer


@pytest.fixture(scope="session")
def nano() -> Pipeline:
    """The embedded model, four sequences at once."""
    return load("nano", max_length=1024, max_batch_size=4)


@pytest.fixture(scope="session")
def grouped() -> RandomModel:
    """Six query heads on two key/value heads: grouped-query attention, and ALiBi for no power of two."""
    return random_model(6, 2)


@pytest.fixture(scope="session")
def grouped_model(grouped: RandomModel) -> CpuModel:
    """`grouped` in float32, four sequences at once."""
    return grouped.compiled(slots=4)


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """One server with nano for all tests, its queue short enough to fill."""
    if any(find_spec(name) is None for name in ("fastapi", "zmq", "httptools", "openai")):
        pytest.skip("needs the extras serve and test")
    from running_server import RunningServer

    options = ["--max-length", "1024", "--max-cache-batch-size", "8", "--max-queue-size", "24"]
    with RunningServer(*options) as running:
        yield running.wait_ready()
