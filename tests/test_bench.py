"""`replit bench`: what it reports is what was asked for, in every format."""

from __future__ import annotations

import csv
import io
import json

import pytest
from click.testing import CliRunner

from pipelines import speed as bench
from pipelines.commands.bench import bench as command
from pipelines.pipeline import Pipeline
from replit.runtime.bandwidth import read_bandwidth


def test_measures_every_combination(nano: Pipeline) -> None:
    rows = list(
        bench.run(
            nano, prompt_sizes=[8], generated=[2, 3], depths=[0, 20], batch_sizes=[1, 2], repeats=2, bandwidth=1e10
        )
    )
    assert [(r.test, r.batch) for r in rows] == [
        ("pp8", 1),
        *((f"tg{n}{d}", b) for d in ("", "@d20") for b in (1, 2) for n in (2, 3)),
        *((f"text{n}{guesses}", 1) for n in (2, 3) for guesses in ("", "+draft")),
    ]
    for row in rows[1:9]:
        assert 0 < row.slowest <= row.tokens_per_second
        # A step reads all weights: rate / batch steps a second.
        assert row.gigabytes_per_second is not None
        assert row.gigabytes_per_second > row.tokens_per_second / row.batch * nano.weight_bytes / 1e9


def test_formats(nano: Pipeline) -> None:
    arguments = ["-p", "4", "-n", "2", "-r", "1", "--draft", "none"]
    result = json.loads(CliRunner().invoke(command, [*arguments, "-o", "json"]).output)
    assert [row["test"] for row in result["results"]] == ["pp4", "tg2"]
    assert result["weights_gb"] == nano.weight_bytes / 1e9
    rows = list(csv.DictReader(io.StringIO(CliRunner().invoke(command, [*arguments, "-o", "csv"]).output)))
    assert [row["test"] for row in rows] == ["pp4", "tg2"]
    markdown = CliRunner().invoke(command, [*arguments, "-o", "md"]).output
    only = json.loads(CliRunner().invoke(command, [*arguments, "-p", "", "-o", "json"]).output)
    assert [row["test"] for row in only["results"]] == ["tg2"]
    assert markdown.startswith("| test | batch |")
    assert "| tg2 | 1 |" in markdown


def test_guesses_are_measured_beside_none(nano: Pipeline) -> None:
    """nano repeats itself before 48 tokens are over, so that some guesses are right."""
    rows = list(bench.run(nano, prompt_sizes=[], generated=[48], depths=[], batch_sizes=[1], repeats=1, bandwidth=None))
    assert [row.test for row in rows] == ["text48", "text48+draft"]
    assert rows[0].tokens_per_read == 1
    assert rows[1].tokens_per_read is not None
    assert rows[1].tokens_per_read > 1
    assert all(0 < row.slowest <= row.tokens_per_second for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-p a,b", "'a,b' is no list of whole numbers from 1 up, such as 64,512"),
        ("-p 0", "'0' is no list of whole numbers from 1 up"),
        ("-n 4,0", "'4,0' is no list of whole numbers from 1 up"),
        ("-b 0", "'0' is no list of whole numbers from 1 up"),
        ("-d -1", "'-1' is no list of whole numbers from 0 up"),
        ("-r 0", "0 is not in the range x>=1"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: str, message: str) -> None:
    result = CliRunner().invoke(command, arguments.split())
    assert result.exit_code == 2
    assert message in result.output


def test_more_tokens_than_the_model_was_trained_on_are_measured(nano: Pipeline) -> None:
    longer = ["-p", "", "-n", "2", "-d", str(nano.config.max_seq_len), "-r", "1", "--draft", "none", "-o", "json"]
    result = CliRunner().invoke(command, longer)
    assert [row["test"] for row in json.loads(result.stdout)["results"]] == ["tg2@d2048"]


@pytest.mark.slow
def test_the_bandwidth_is_plausible() -> None:
    assert 1e9 < read_bandwidth(repeats=2) < 2e12
