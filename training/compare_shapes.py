"""Trains shapes of about equal file size alike and compares their bits a byte on the held-out packages.

    python -m training.compare_shapes --data DIR [--steps N]

Writes DIR/shapes.jsonl, a line a shape; shapes that it already holds are not trained again. A vocabulary other than
nano's gets a tokenizer and arrays of its own in DIR/vocab-N.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer

from training.batches import heldout_rows
from training.export_gguf import load_checkpoint
from training.model import ModelConfig, Nano
from training.precision import fast_dtype
from training.tokenizer import VOCAB_SIZE

SHAPES = (
    ModelConfig(),
    ModelConfig(n_layers=12, d_model=192, n_heads=3, n_kv_heads=1),
    ModelConfig(n_layers=4, d_model=320, n_heads=5, n_kv_heads=1),
    ModelConfig(n_layers=8, vocab_size=4096),
    ModelConfig(n_layers=3, vocab_size=16384),
)
SEQ_LEN = 256
ROWS = 256  # held-out rows to measure on


def _run(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", f"training.{module}", *map(str, arguments)], check=True)


def arrays_for(data: Path, vocab_size: int) -> Path:
    """The folder with the tokenizer of this size and the corpus in its tokens, made if it is not there."""
    if vocab_size == VOCAB_SIZE:
        return data
    folder = data / f"vocab-{vocab_size}"
    if not (folder / "heldout.npz").exists():
        folder.mkdir(exist_ok=True)
        for name in ("train.jsonl", "heldout.jsonl"):
            if not (folder / name).exists():
                os.link(data / name, folder / name)
        _run("tokenizer", "--data", folder, "--vocab-size", vocab_size)
        _run("prepare", "--data", folder)
    return folder


def train(shape: ModelConfig, data: Path, out: Path, steps: int) -> Nano:
    """The shape after `steps` steps of 16 rows of 256 tokens."""
    options = [f"--{k.replace('_', '-')}={v}" for k, v in asdict(shape).items()]
    schedule = ["--steps", steps, "--warmup", 40, "--cooldown", steps // 2, "--average", 0.98, "--save-every", steps]
    rows = ["--files-rows", 4, "--fim-rows", 8, "--snippets-rows", 4, "--loops-rows", 0, "--seq-len", SEQ_LEN]
    _run("train", "--data", data, "--out", out, "--compile", *options, *schedule, *rows)
    return load_checkpoint(out / "checkpoint.pt")


@torch.no_grad()
def bits_per_byte(model: Nano, data: Path) -> float:
    """Mean over held-out rows; a row's first token is given."""
    tokenizer = Tokenizer.from_file(str(data / "tokenizer.json"))
    nats, count = 0.0, 0
    for ids, targets in _batches(data):
        with torch.autocast("cpu", torch.bfloat16, fast_dtype("cpu") == torch.bfloat16):
            nats += float(model.loss(ids, targets)) * targets.numel()
        count += sum(len(tokenizer.decode(row).encode()) for row in targets.tolist())
    return nats / count / math.log(2)


def _batches(data: Path) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    ids, targets = heldout_rows(data, ROWS, SEQ_LEN)
    yield from zip(ids.split(16), targets.split(16), strict=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the prepared arrays")
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    results = args.data / "shapes.jsonl"
    done = [json.loads(line)["shape"] for line in results.read_text().splitlines()] if results.exists() else []
    for shape in SHAPES:
        if asdict(shape) in done:
            continue
        data = arrays_for(args.data, shape.vocab_size)
        name = f"{shape.n_layers}x{shape.d_model}-{shape.vocab_size}"
        started = time.monotonic()
        model = train(shape, data, args.data / "shapes" / name, args.steps)
        record = {
            "shape": asdict(shape),
            "parameters": sum(p.numel() for p in model.parameters()),
            "tokens": args.steps * 16 * SEQ_LEN,
            "minutes": round((time.monotonic() - started) / 60, 1),
            "bits_per_byte": round(bits_per_byte(model, data), 4),
        }
        with results.open("a") as f:
            print(json.dumps(record), file=f)
        print(record)


if __name__ == "__main__":
    main()
