"""The plot of size against quality that docs/models.md shows; needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Bits per byte over the size of the file, ours and llama.cpp's, as a vector graphic."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    series = {
        "this project": ("bytes", "bits_per_byte", "encoding"),
        "llama.cpp": ("llama_cpp_bytes", "llama_cpp_bits_per_byte", "llama_cpp_type"),
    }
    for (label, keys), marker in zip(series.items(), "os", strict=True):
        points = [tuple(row[key] for key in keys) for row in rows if keys[1] in row]
        sizes = [size / 1e6 for size, _, _ in points]
        axes.plot(sizes, [bits for _, bits, _ in points], marker, label=label, alpha=0.8)
        for (_, bits, name), size in zip(points, sizes, strict=True):
            offset = (6, 6) if label == "this project" else (6, -12)
            axes.annotate(name, (size, bits), xytext=offset, textcoords="offset points", size=8)
    axes.set_xlabel("file, MB")
    axes.set_ylabel("bits per byte (lower is better)")
    axes.set_title("nano on held-out Python")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
