"""Whose turn it is in a batch, by what passes were measured to take."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.server.process.turns import PASS_SECONDS, Costs, Turns


@dataclass
class Tokens:
    active_length: int
    chunks: list[int] = field(default_factory=list)

    def chunk(self, count: int) -> None:
        self.chunks.append(count)
        self.active_length = count


@dataclass
class Context:
    """As much of MAX's as is looked at."""

    request_id: str
    tokens: Tokens
    background: bool = False
    turn: float = 0.0


def context(name: str, count: int, **more: Any) -> Any:
    return Context(name, Tokens(count), **more)


def turns(layers: int, seconds_a_row: float | None) -> Turns:
    found = Turns(layers, 512, lambda context: (context.background, context.turn))  # type: ignore[attr-defined]
    if seconds_a_row is not None:
        for rows in (1, 16, 64, 512):
            found.costs.measured(rows, rows * seconds_a_row)
    return found


def test_what_is_quick_runs_together() -> None:
    batch = [context("stream", 1), context("short", 30), context("long", 400)]
    turn = turns(6, 0.0001).choose(batch, [])
    assert [c.request_id for c in turn.together] == ["stream", "short", "long"]
    assert turn.long is None


def test_a_pass_has_a_largest_size() -> None:
    turn = turns(6, 0.00001).choose([context("a", 400), context("b", 400)], [])
    assert ([c.request_id for c in turn.together], turn.long.request_id if turn.long else "") == (["a"], "b")


def test_streams_and_short_prompts_do_not_wait_for_a_long_one() -> None:
    long = context("long", 512)
    turn = turns(32, 0.005).choose([context("stream", 1), long, context("short", 10)], [long])
    assert [c.request_id for c in turn.together] == ["stream", "short"]
    assert turn.long is long


def test_long_prompts_take_turns() -> None:
    first, second = context("first", 512, turn=2.0), context("second", 512, turn=1.0)
    assert turns(32, 0.005).choose([first, second], [first]).long is second


@pytest.mark.parametrize("other", [context("stream", 1), context("prompt", 600)])
def test_the_background_waits_for_everybody(other: Any) -> None:
    warm = context("warm", 512, background=True)
    turn = turns(32, 0.005).choose([warm, other], [])
    assert warm not in [*turn.together, turn.long]
    assert turns(32, 0.005).choose([warm], []).long is warm


def test_layers_of_a_piece_take_as_long_as_a_pass_may() -> None:
    measured = turns(32, 0.005)
    count = measured.layers(512, 0.0)
    assert 0.5 * PASS_SECONDS < count * 512 * 0.005 / 32 <= PASS_SECONDS
    assert measured.layers(512, 10.0) >= 1
    assert turns(32, None).layers(512, 0.0) == 1


def test_a_prompt_that_cannot_be_cut_between_layers_is_cut_into_fewer_tokens() -> None:
    long = context("long", 512)
    turn = turns(1, 0.005).choose([context("stream", 1), long], [])
    assert turn.long is None
    assert long in turn.together
    assert long.tokens.chunks[-1] * 0.005 <= PASS_SECONDS
    alone = context("alone", 512)
    turns(1, 0.005).choose([alone], [])
    assert alone.tokens.chunks[-1] > long.tokens.chunks[-1]


def test_costs_between_and_beyond_what_was_measured() -> None:
    costs = Costs()
    assert costs.of(10) is None
    costs.measured(64, 0.64)
    assert costs.of(512) == pytest.approx(5.12)
    assert costs.of(8) == pytest.approx(0.64)
    costs.measured(8, 0.1)
    assert costs.of(8) == pytest.approx(0.1)
    for _ in range(30):
        costs.measured(64, 0.32)
    assert costs.of(64) == pytest.approx(0.32, rel=0.01)


def test_a_failing_pass_over_a_part_of_a_prompt_is_that_sequences_alone(capfd: pytest.CaptureFixture[str]) -> None:
    from max.pipelines.context import TextContext
    from max.pipelines.modeling.types import TextGenerationInputs
    from test_text_stream import Bytes

    from pipelines.engine.sampling import SamplingParams
    from pipelines.engine.sequence import SequenceRequest
    from pipelines.server.process.batch import BatchPipeline

    distrusted: list[TextContext] = []
    cache: Any = SimpleNamespace(distrust=distrusted.append)
    passes: Any = object()  # every pass fails
    pipeline = BatchPipeline(passes, cache, 4, 4096, Bytes())
    contexts = [pipeline.admit(SequenceRequest(f"s{i}", [65] * 2000, SamplingParams(), (0,))) for i in range(2)]
    contexts[0].tokens.chunk(512)  # as the scheduler cuts long prompts
    batch: Any = TextGenerationInputs(batches=[contexts])
    found = pipeline.execute(batch)
    assert [result.step.end for result in found.values()] == ["failed", "failed"]
    assert all(result.is_done for result in found.values())
    assert len(distrusted) == 2
    assert "Traceback" in capfd.readouterr().err
