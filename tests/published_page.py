"""The page that lists other servers' published test cases: `python tests/published_page.py > docs/server_cases.md`.

A test says if the page is old.
"""

from __future__ import annotations

from collections.abc import Iterable

from published_cases import Group
from published_llama import GROUPS as LLAMA
from published_vllm import GROUPS as VLLM


def _lines(groups: Iterable[Group]) -> Iterable[str]:
    for group in groups:
        for case in group.cases:
            yield f"| `{group.file}` {case.name} | {case.verdict} | {case.why} |"
        for name in group.elsewhere:
            yield f"| `{group.file}` {name} | not here | {group.why} |"


def page() -> str:
    """docs/server_cases.md."""
    tables = {
        "llama.cpp: tools/server/tests/unit (as in llama-cpp-python 0.3.36)": LLAMA,
        "vLLM 0.33: tests/entrypoints": VLLM,
    }
    told = [
        "# Test cases of other servers", "",
        "Each case that llama.cpp and vLLM publish for what this server has, and what it does here: **met**; **refused** (an",
        "error that names the field or route); **otherwise** (another answer, and why); **not here** (of a thing that this",
        "server does not have). Their requests, for our model and checks, are in tests/published_llama.py and",
        "tests/published_vllm.py; `pytest tests/test_published_cases.py` sends them all, and",
        "`python tests/published_page.py > docs/server_cases.md` writes this page.", "",
    ]  # fmt: skip
    for title, groups in tables.items():
        told += [f"## {title}", "", "| case | here | |", "|---|---|---|", *_lines(groups), ""]
    return "\n".join(told)


if __name__ == "__main__":
    print(page(), end="")
