"""Documentation that is generated, or that says something which can be checked."""

from __future__ import annotations

import re
from pathlib import Path

from docs.generate import TARGET, cli_page

ROOT = Path(__file__).parent.parent


def test_the_command_line_page_is_current() -> None:
    assert TARGET.read_text() == cli_page(), "run: python -m docs.generate"


def test_links_between_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} links to {link}"
