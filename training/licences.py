"""Which licence a package has, by its own metadata, and whether that licence is permissive.

The order of trust: the SPDX `License-Expression`, the trove classifiers, the free-text `License` field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message

# Every part of an expression must be one of these for the package to be used.
PERMISSIVE = {
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "0BSD",
    "Apache-2.0",
    "PSF-2.0",
    "Python-2.0",
    "CNRI-Python",
    "ISC",
    "Unlicense",
    "Zlib",
    "CC0-1.0",
    "HPND",
    "BSL-1.0",
}

_CLASSIFIERS = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "BSD License": "BSD",
    "Apache Software License": "Apache-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "ISC License (ISCL)": "ISC",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
}

# Free text, tried in order: a copyleft word anywhere wins over a permissive one.
_FREE_TEXT = [
    (r"\b[AL]?GPL|general public licen[cs]e|mozilla|\bMPL\b|proprietary|commercial", None),
    (r"apache", "Apache-2.0"),
    (r"new bsd|3-clause|bsd-3|modified bsd", "BSD-3-Clause"),
    (r"2-clause|simplified bsd|bsd-2", "BSD-2-Clause"),
    (r"\bbsd\b", "BSD"),
    (r"\bmit\b", "MIT"),
    (r"\bisc\b", "ISC"),
    (r"python software foundation|\bpsf\b", "PSF-2.0"),
    (r"unlicense", "Unlicense"),
]


@dataclass(frozen=True)
class Licence:
    """`name` is an SPDX identifier or expression, `source` the metadata field that said so."""

    name: str
    permissive: bool
    source: str


def _expression_is_permissive(expression: str) -> bool:
    """True if every AND part has an OR alternative that is permissive; exceptions (WITH) are not."""
    flat = expression.replace("(", " ").replace(")", " ")
    return all(
        any(choice.strip() in PERMISSIVE for choice in re.split(r"\s+OR\s+", part))
        for part in re.split(r"\s+AND\s+", flat)
    )


def _from_classifiers(values: list[str]) -> Licence | None:
    names = [v.split(" :: ")[-1] for v in values if v.startswith("License :: ")]
    names = [n for n in names if n != "OSI Approved"]
    if not names:
        return None
    known = [_CLASSIFIERS.get(n) for n in names]
    label = " AND ".join(k or n for k, n in zip(known, names, strict=True))
    return Licence(label, None not in known, "classifier")


def classify(metadata: Message) -> Licence:
    """Licence of a package from its core metadata (PKG-INFO or METADATA); unknown is not permissive."""
    expression = metadata.get("License-Expression")
    if expression:
        return Licence(expression, _expression_is_permissive(expression), "expression")
    by_classifier = _from_classifiers(metadata.get_all("Classifier") or [])
    if by_classifier is not None:
        return by_classifier
    text = (metadata.get("License") or "").strip()
    first_lines = " ".join(text.splitlines()[:3])
    if first_lines in PERMISSIVE:
        return Licence(first_lines, True, "field")
    for pattern, name in _FREE_TEXT:
        if re.search(pattern, first_lines, re.IGNORECASE):
            return Licence(name or first_lines[:60], name is not None, "field")
    return Licence(first_lines[:60] or "unknown", False, "field")
