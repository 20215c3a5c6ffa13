"""llama.cpp's and vLLM's published test cases, sent to this server: docs/server_cases.md lists them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from published_cases import Case, run
from published_llama import GROUPS as LLAMA
from published_llama import KEY, SECURITY
from published_page import page
from published_vllm import GROUPS as VLLM
from running_server import RunningServer

CASES = [case for group in (*LLAMA, *VLLM) if group is not SECURITY for case in group.cases]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace("`", ""))
def test_case(server: RunningServer, case: Case) -> None:
    run(case, server.url)


@pytest.fixture(scope="module")
def guarded() -> Iterator[RunningServer]:
    options = ["--max-length", "1024", "--api-key", KEY, "--cors-origin", "web.mydomain.fr"]
    with RunningServer(*options) as running:
        yield running.wait_ready()


@pytest.mark.parametrize("case", SECURITY.cases, ids=lambda case: case.name.replace("`", ""))
def test_case_with_a_key(guarded: RunningServer, case: Case) -> None:
    run(case, guarded.url)


def test_the_page_lists_them() -> None:
    told = Path(__file__).parent.parent / "docs/server_cases.md"
    assert told.read_text() == page(), "run: python tests/published_page.py > docs/server_cases.md"
