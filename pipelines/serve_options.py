"""The settings of `replit --serve`. Imported by the command line: no heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class ServeOptions:
    """Everything the server was started with. `None` means: not given."""

    model: str = "nano"
    weight_path: str | None = None
    quantization_encoding: str | None = None
    max_length: int = 512
    max_batch_size: int = 16
    serialized_model_path: str | None = None
    save_to_serialized_model_path: str | None = None
    threads: int | None = None
    mmap: bool | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    cors_origins: tuple[str, ...] = ()
    max_queue_size: int = 128
    max_body_bytes: int = 4 << 20
    shutdown_timeout: float = 30.0
    log_format: Literal["text", "json"] = "text"
    served_model_name: str | None = None
    prefix_caching: bool = True
    # Sampling options given at start; they replace the defaults of a request, not what it states.
    sampling: dict[str, Any] = field(default_factory=dict)
    debug: bool = False

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.served_model_name or self.model
