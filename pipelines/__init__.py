"""Code completion with models of the Replit Code family: `load()` a model, then `generate()` or `stream()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weights.errors import UserError

if TYPE_CHECKING:
    from pipelines.pipeline import Completion, Pipeline, TextPiece, load

    __version__: str

__all__ = ["Completion", "Pipeline", "TextPiece", "UserError", "__version__", "load"]


def __getattr__(name: str) -> object:
    # `replit --help` must not wait for NumPy and MAX.
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("replit-code-max")
        except metadata.PackageNotFoundError:  # a checkout that is not installed
            return "0+unknown"
    if name in __all__:
        from pipelines import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
