"""Compiled models shared by all tests: each costs half a minute when nothing is cached."""

from __future__ import annotations

import pytest

from models import RandomModel, random_model
from pipelines.pipeline import Pipeline, load
from replit.model import ReplitModel


@pytest.fixture(scope="session")
def nano() -> Pipeline:
    """The embedded model, four sequences at once."""
    return load("nano", max_length=1024, max_batch_size=4)


@pytest.fixture(scope="session")
def grouped() -> RandomModel:
    """Six query heads on two key/value heads: grouped-query attention, and ALiBi for no power of two."""
    return random_model(6, 2)


@pytest.fixture(scope="session")
def grouped_model(grouped: RandomModel) -> ReplitModel:
    """`grouped` in float32, four sequences at once."""
    return grouped.compiled(slots=4)
