"""Builds the corpus from packages.txt: download, licence, filters, duplicates, benchmark overlap.

    python -m training.collect --data DIR --human-eval HumanEval.jsonl.gz

Writes DIR/train.jsonl and DIR/heldout.jsonl (package, path, test, text) and training/manifest.json. Each wheel
is downloaded once, by name and version, with pip; the standard library is that of the running Python.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from email.parser import BytesParser
from multiprocessing import Pool
from pathlib import Path

from tqdm import tqdm

from training import contamination, filters
from training.dedup import Deduplicator
from training.licences import Licence, classify

HERE = Path(__file__).parent
STDLIB = "cpython-stdlib"


@dataclass(frozen=True)
class Package:
    """One line of packages.txt."""

    split: str
    name: str
    version: str


@dataclass
class Document:
    """One file that is kept."""

    package: str
    path: str
    test: bool
    text: str


@dataclass
class Extracted:
    """What a package gave before duplicates are removed."""

    package: Package
    licence: Licence
    documents: list[Document] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)


def read_packages(path: Path) -> list[Package]:
    """packages.txt without comments; the standard library takes this Python's version."""
    rows = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
    here = ".".join(map(str, sys.version_info[:3]))
    return [Package(split, *(spec.split("==") if "==" in spec else (spec, here))) for split, spec in rows]


def download(package: Package, wheels: Path) -> Path:
    """The wheel of a package, fetched with pip unless it is there already."""
    stem = f"{package.name.replace('-', '_')}-{package.version}-"
    found = [p for p in wheels.glob("*.whl") if p.name.lower().startswith(stem)]
    if not found:
        spec = f"{package.name}=={package.version}"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "-d", str(wheels), spec], check=True)
        return download(package, wheels)
    return found[0]


def _stdlib_files() -> Iterator[tuple[str, bytes]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        name = str(path.relative_to(root))
        if "site-packages" not in name:
            yield name, path.read_bytes()


def _wheel_files(wheel: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as z:
        for name in sorted(z.namelist()):
            if name.endswith(".py"):
                yield name, z.read(name)


def _wheel_licence(wheel: Path) -> Licence:
    with zipfile.ZipFile(wheel) as z:
        name = next(n for n in z.namelist() if n.endswith(".dist-info/METADATA"))
        return classify(BytesParser().parsebytes(z.read(name)))


def extract(job: tuple[Package, Path | None]) -> Extracted:
    """All files of one package that pass the filters; none if its licence is not permissive."""
    package, wheel = job
    licence = _wheel_licence(wheel) if wheel else Licence("PSF-2.0", True, "CPython's LICENSE")
    result = Extracted(package, licence)
    if not licence.permissive:
        return result
    for path, raw in _wheel_files(wheel) if wheel else _stdlib_files():
        text = filters.clean(raw)
        reason = "not UTF-8" if text is None else filters.reject_reason(path, text)
        if reason is None and text is not None:
            result.documents.append(Document(package.name, path, filters.is_test(path), text))
        else:
            result.rejected[reason or ""] += 1
    return result


def _keep(
    found: Extracted, dedup: Deduplicator, problems: dict[str, set[int]], overlap: Counter[str]
) -> list[Document]:
    kept = []
    for document in found.documents:
        if not dedup.is_new(document.text):
            continue
        names = contamination.hits(document.text, problems)
        overlap.update(names)
        if names:
            print(f"overlap {document.package} {document.path}: {' '.join(names)}")
        else:
            kept.append(document)
    return kept


def _write(path: Path, documents: list[Document]) -> None:
    with path.open("w") as f:
        f.writelines(json.dumps(asdict(document)) + "\n" for document in documents)


def _row(found: Extracted, kept: list[Document]) -> dict[str, object]:
    """One package's line in the manifest."""
    return asdict(found.package) | {
        "licence": found.licence.name,
        "licence_from": found.licence.source,
        "used": found.licence.permissive,
        "files": len(kept),
        "bytes": sum(len(d.text.encode()) for d in kept),
        "rejected": dict(found.rejected),
    }


def collect(data: Path, human_eval: Path) -> dict[str, object]:
    """Runs everything and returns the manifest."""
    wheels = data / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    packages = read_packages(HERE / "packages.txt")
    jobs = [(p, None if p.name == STDLIB else download(p, wheels)) for p in packages]
    with Pool() as pool:
        extracted = list(tqdm(pool.imap(extract, jobs), total=len(jobs), desc="extract"))
    extracted.sort(key=lambda e: e.package.split)  # held-out packages first: they win a duplicate
    problems = contamination.human_eval(human_eval)
    dedup, overlap, rows = Deduplicator(), Counter[str](), []
    splits: dict[str, list[Document]] = {"train": [], "heldout": []}
    for found in tqdm(extracted, desc="deduplicate"):
        kept = _keep(found, dedup, problems, overlap)
        splits[found.package.split] += kept
        rows.append(_row(found, kept))
    for split, documents in splits.items():
        _write(data / f"{split}.jsonl", documents)
    return {
        "bytes": {s: sum(len(d.text.encode()) for d in docs) for s, docs in splits.items()},
        "duplicates": {"exact": dedup.exact, "near": dedup.near},
        "human_eval_overlap": dict(overlap),
        "packages": rows,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder for downloads and corpus")
    parser.add_argument("--human-eval", type=Path, required=True, help="HumanEval.jsonl.gz to keep out")
    args = parser.parse_args()
    manifest = collect(args.data, args.human_eval)
    (HERE / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(json.dumps(manifest["bytes"]))


if __name__ == "__main__":
    main()
