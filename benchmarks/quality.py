"""Bits per byte of a model in each encoding on given text, beside llama.cpp's.

    python -m benchmarks.quality --text heldout.jsonl [--model nano] [--tokens N] [--encodings E ...] [--calibrate TEXT]
                                 [--plot FILE.svg] [--document FILE.md]

Ours: files of `replit convert` in this project. llama.cpp's: files of its own quantizer, made from
the same float32 file, in llama.cpp. Both differences are to the same engine's float32, since
llama.cpp computes GELU by another formula. `agreement` is the share of positions where llama.cpp
has the same most probable token as this project, both on our file. What misses a bound ends the
command with status 1; `--document` replaces the table in a page, between its `<!-- quality -->` marks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.quality_plot import plot
from pipelines import pipeline
from pipelines.calibration import inputs_of
from pipelines.registry import architecture_of, locate
from replit.decoder import gguf_export
from weights.convert import TARGETS
from weights.errors import UserError
from weights.files.checkpoint import open_checkpoint
from weights.tensor import Encoding
from weights.tokenizers.load import load_tokenizer
from weights.tokenizers.tokenizer import Tokenizer

Floats = npt.NDArray[np.float32]
Logits = Callable[[list[int]], Floats]

#: Tokens of one window. Later ones see more, as in use.
WINDOW = 1024

#: At most llama.cpp's difference to float32 plus 5 %, and what a sample of 20 000 tokens cannot tell apart.
MORE_THAN_LLAMA_CPP, NOISE = 1.05, 0.0003
#: At least this share of positions with llama.cpp's most probable token.
AGREEMENT = 0.98

#: What llama-quantize calls the nearest thing to each of our encodings.
LLAMA_CPP_TYPES = {
    Encoding.BFLOAT16: "BF16",
    Encoding.Q8_0: "Q8_0",
    Encoding.Q4_0: "Q4_0",
    Encoding.Q4_K: "Q4_K_M",
    Encoding.Q6_K: "Q6_K",
}


@dataclass(frozen=True)
class Window:
    """Token ids, the first of which (end of text) only opens; bytes of the others' text."""

    ids: list[int]
    text_bytes: int


@dataclass(frozen=True)
class Score:
    """Bits per byte, and the most probable token at each position."""

    bits_per_byte: float
    best: npt.NDArray[np.int64]


def texts(paths: list[Path]) -> Iterator[str]:
    """The documents: each file, or each "text" of a .jsonl file."""
    for path in paths:
        if path.suffix != ".jsonl":
            yield path.read_text()
            continue
        with path.open() as file:
            yield from (json.loads(line)["text"] for line in file)


def windows(documents: Iterator[str], tokenizer: Tokenizer, limit: int) -> list[Window]:
    """The starts of documents, until there are `limit` tokens."""
    opening = tokenizer.eos_token_id or 0
    found: list[Window] = []
    count = 0
    for text in documents:
        ids = tokenizer.encode(text, parse_special=False)[: WINDOW - 1]
        size = sum(len(tokenizer.token_bytes(i)) for i in ids)
        if count >= limit:
            break
        found.append(Window([opening, *ids], size))
        count += len(ids)
    return found


def score(logits: Logits, sample: list[Window]) -> Score:
    """Run every window, in float64 from the logits on."""
    bits, size, best = 0.0, 0, []
    for window in sample:
        rows = logits(window.ids)[: len(window.ids) - 1].astype(np.float64)
        targets = np.array(window.ids[1:])
        peak = rows.max(axis=1)
        norm = peak + np.log(np.exp(rows - peak[:, None]).sum(axis=1))
        bits += float((norm - rows[np.arange(len(targets)), targets]).sum() / np.log(2))
        size += window.text_bytes
        best.append(rows.argmax(axis=1))
    return Score(bits / size, np.concatenate(best))


def ours(path: Path) -> Logits:
    """This project's logits for a file."""
    return pipeline.load(weight_path=str(path), max_length=WINDOW).logits


def llama_cpp(path: Path) -> Logits:
    """llama.cpp's logits for a file."""
    from llama_cpp import Llama

    llama = Llama(str(path), n_ctx=WINDOW, n_batch=WINDOW, logits_all=True, verbose=False)

    def logits(ids: list[int]) -> Floats:
        llama.reset()
        llama.eval(ids)
        return np.array(llama.scores[: len(ids)])

    return logits


def llama_quantize(source: Path, path: Path, kind: str) -> Path:
    """llama-quantize, with its defaults."""
    import llama_cpp as library

    options = library.llama_model_quantize_default_params()
    options.ftype = getattr(library, f"LLAMA_FTYPE_MOSTLY_{kind}")
    if library.llama_model_quantize(str(source).encode(), str(path).encode(), options):
        raise RuntimeError(f"llama.cpp cannot quantize {source} to {kind}")
    return path


def write_files(
    model: str, encodings: Iterable[Encoding], folder: Path, calibrate: Path | None
) -> dict[Encoding, Path]:
    """What `replit convert` makes of a model in each encoding, calibrated with a text where there is one."""
    source = open_checkpoint(locate(model, None, None))
    files = {encoding: folder / f"{encoding}.gguf" for encoding in encodings}
    for encoding, path in files.items():
        plan = gguf_export.plan(source, model, encoding, architecture_of(source))
        if calibrate is None:
            gguf_export.write(plan, path)
            continue
        with inputs_of(calibrate, plan.config, plan.tensors, load_tokenizer(source), None, lambda line: None) as inputs:
            gguf_export.write(plan, path, inputs=inputs)
    return files


def measure(
    model: str,
    sample: list[Window],
    folder: Path,
    encodings: Iterable[Encoding] = TARGETS,
    calibrate: Path | None = None,
) -> list[dict[str, Any]]:
    """One row an encoding."""
    files = write_files(model, dict.fromkeys((Encoding.FLOAT32, *encodings)), folder, calibrate)
    exact = files[Encoding.FLOAT32]
    base, llama_base = score(ours(exact), sample), score(llama_cpp(exact), sample)
    rows = []
    for encoding, path in files.items():
        kind = LLAMA_CPP_TYPES.get(encoding)
        theirs = llama_quantize(exact, folder / f"{kind}.gguf", kind) if kind else exact
        row = {"encoding": str(encoding), "bytes": path.stat().st_size}
        row |= {"llama_cpp_type": kind or "F32", "llama_cpp_bytes": theirs.stat().st_size}
        row |= _figures(path, theirs, sample, base, llama_base)
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def _figures(path: Path, theirs: Path, sample: list[Window], base: Score, llama_base: Score) -> dict[str, Any]:
    peer = score(llama_cpp(theirs), sample)
    row: dict[str, Any] = {
        "llama_cpp_bits_per_byte": round(peer.bits_per_byte, 5),
        "llama_cpp_difference": round(peer.bits_per_byte - llama_base.bits_per_byte, 5),
    }
    try:
        own = score(ours(path), sample)
    except UserError as error:
        return row | {"not_run": str(error)}
    same = score(llama_cpp(path), sample).best == own.best
    return row | {
        "bits_per_byte": round(own.bits_per_byte, 5),
        "difference": round(own.bits_per_byte - base.bits_per_byte, 5),
        "agreement": round(float(same.mean()), 4),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown for docs/models.md."""
    lines = [
        "| encoding | file, MB | bits per byte | difference to float32 | llama.cpp: file, MB "
        "| bits per byte | difference | same top token |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own = ("-", "-", "-") if "not_run" in row else (
            f"{row['bits_per_byte']:.4f}",
            f"{row['difference']:+.5f}",
            f"{row['agreement']:.1%}",
        )  # fmt: skip
        lines.append(
            f"| {row['encoding']} | {row['bytes'] / 1e6:.2f} | {own[0]} | {own[1]} "
            f"| {row['llama_cpp_type']}: {row['llama_cpp_bytes'] / 1e6:.2f} "
            f"| {row['llama_cpp_bits_per_byte']:.4f} | {row['llama_cpp_difference']:+.5f} | {own[2]} |"
        )
    return "\n".join(lines)


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each bound that a row misses."""
    found = []
    for row in rows:
        if "not_run" in row:
            found.append(f"{row['encoding']}: not run, {row['not_run']}")
            continue
        most = MORE_THAN_LLAMA_CPP * max(row["llama_cpp_difference"], 0.0) + NOISE
        if row["difference"] > most:
            found.append(f"{row['encoding']}: {row['difference']:+.5f} bits per byte; expected at most {most:+.5f}")
        if row["agreement"] < AGREEMENT:
            found.append(f"{row['encoding']}: {row['agreement']:.1%} same top token; expected {AGREEMENT:.0%}")
    return found


def replace_table(page: str, new: str) -> str:
    """`page` with `new` between its marks. Raises ValueError for a page without them."""
    begin, end = "<!-- quality -->\n", "<!-- end -->"
    pattern = re.compile(f"{begin}.*?{end}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise ValueError(f"expected one table between {begin.strip()} and {end}")
    return pattern.sub(lambda _: f"{begin}{new}\n{end}", page)


def described(model: str, sample: list[Window]) -> str:
    """One sentence on what was measured."""
    path = locate(model, None, None)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    tokens, size = sum(len(window.ids) - 1 for window in sample), sum(window.text_bytes for window in sample)
    return f"{model} (sha256 {digest[:12]}), {tokens:,} tokens ({size:,} bytes) of text it has not seen:"


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--encodings", nargs="+", choices=[str(e) for e in TARGETS], default=[str(e) for e in TARGETS])
    parser.add_argument("--calibrate", type=Path, help="as for replit convert; another text than --text")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--document", type=Path, help="a Markdown page with the table's marks")
    args = parser.parse_args()
    tokenizer = load_tokenizer(open_checkpoint(locate(args.model, None, None)))
    sample = windows(texts(args.text), tokenizer, args.tokens)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args.model, sample, Path(folder), [Encoding(e) for e in args.encodings], args.calibrate)
    print(table(rows))
    if args.document:
        text = f"{described(args.model, sample)}\n\n{table(rows)}"
        args.document.write_text(replace_table(args.document.read_text(), text))
    if args.plot:
        plot(rows, args.plot)
    summary = {
        "model": args.model,
        "tokens": sum(len(window.ids) - 1 for window in sample),
        "bytes": sum(window.text_bytes for window in sample),
        "rows": rows,
    }
    print(*(failures := missed(rows)), sep="\n", file=sys.stderr)
    print(json.dumps(summary))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
