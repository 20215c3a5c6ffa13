"""Draws the loss curve of a training log.

python -m training.plot_loss --log docs/nano-loss.jsonl --output docs/nano-loss.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.log.read_text().splitlines()]
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for key, style in (("loss", "-"), ("heldout", "o-")):
        points = [(r["tokens"] / 1e6, r[key]) for r in rows if key in r]
        axes.plot(*zip(*points, strict=True), style, label=key, linewidth=1, markersize=3)
    axes.set(xlabel="tokens, millions", ylabel="nats a token", ylim=(2.3, 6))
    axes.legend(["training batch", "held-out packages (averaged weights)"])
    axes.grid(alpha=0.3)
    figure.savefig(args.output)


if __name__ == "__main__":
    main()
