"""The settings of `replit --serve`, and its options on the command line. No heavy imports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import click
from click.core import ParameterSource

from pipelines.terminal.options import device_name

Command = TypeVar("Command", bound=Callable[..., Any])

# Sequences at once where the command line does not say: a server for one at a time is rarely wanted.
DEFAULT_BATCH = 16


@dataclass(frozen=True)
class ServeOptions:
    """Everything the server was started with. `None` means: not given."""

    model: str = "nano"
    weight_path: str | None = None
    config_path: str | None = None
    tokenizer_path: str | None = None
    quantization_encoding: str | None = None
    max_length: int = 512
    allow_longer: bool = False
    max_batch_size: int = DEFAULT_BATCH
    serialized_model_path: str | None = None
    save_to_serialized_model_path: str | None = None
    device: str = "cpu"
    threads: int | None = None
    mmap: bool | None = None
    kv_cache_encoding: str | None = None
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
    cache_dir: str | None = None
    cache_dir_bytes: int = 4 << 30
    draft: str = "auto"
    page: bool = True
    # Sampling options given at start; they replace the defaults of a request, not what it states.
    sampling: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.served_model_name or self.model


_OPTIONS = (
    click.option("--host", default="127.0.0.1", show_default=True, help="Where --serve listens."),
    click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
                 help="Where --serve listens; 0: any free port."),
    click.option("--api-key", envvar="REPLIT_API_KEY", show_envvar=True, metavar="KEY",
                 help="The key that --serve asks of its clients."),
    click.option("--cors-origin", multiple=True, metavar="ORIGIN",
                 help="A web origin that may call the server; may be repeated, * allows all."),
    click.option("--served-model-name", metavar="NAME", help="What clients call the model [default: --model]."),
    click.option("--max-queue-size", type=click.IntRange(0), default=128, show_default=True, metavar="N",
                 help="Sequences that may wait; further requests are answered with 429."),
    click.option("--max-body-size", type=click.IntRange(1), default=4 << 20, show_default=True, metavar="BYTES",
                 help="Longest request body."),
    click.option("--shutdown-timeout", type=click.FloatRange(0), default=30.0, show_default=True, metavar="SECONDS",
                 help="How long running requests may go on after SIGTERM."),
    click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
                 help="How the server writes its log."),
    click.option("--prefix-caching/--no-prefix-caching", default=True, show_default=True,
                 help="Keep the cache of earlier prompts for later ones that begin alike."),
    click.option("--cache-dir", type=click.Path(file_okay=False), metavar="DIR",
                 help="Keep that cache over a restart, in this folder."),
    click.option("--cache-dir-size", "cache_dir_bytes", type=click.IntRange(1), default=4 << 30, show_default=True,
                 metavar="BYTES", help="Most that --cache-dir may take."),
    click.option("--page/--no-page", default=True, show_default=True,
                 help="Show a page with an editor to browsers that open the address."),
)  # fmt: skip


def serve_click_options(command: Command) -> Command:
    """Adds the options of `--serve` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_SAMPLING = ("max_new_tokens", "top_k", "temperature", "top_p", "min_p", "repetition_penalty", "stop")
_SHARED = (
    "model", "weight_path", "config_path", "tokenizer_path", "quantization_encoding", "max_length", "allow_longer",
    "serialized_model_path",
    "save_to_serialized_model_path", "threads", "mmap", "kv_cache_encoding", "host", "port", "api_key",
    "max_queue_size", "shutdown_timeout", "log_format", "served_model_name", "prefix_caching", "draft",
    "cache_dir", "cache_dir_bytes",
    "page",
)  # fmt: skip
_OTHERS = ("serve", "debug", "quiet", "max_cache_batch_size", "cors_origin", "max_body_size", "use_gpu")


def from_command_line(ctx: click.Context, options: dict[str, Any]) -> ServeOptions:
    """The settings that a command line gives. Raises click.UsageError for options that a server has no use for."""
    given = {name for name in options if ctx.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)}
    useless = sorted(given - {*_SAMPLING, *_SHARED, *_OTHERS})
    if useless:
        names = ", ".join("--" + name.replace("_", "-") for name in useless)
        raise click.UsageError(f"{names} has no meaning with --serve; leave it out", ctx)
    batch = options["max_cache_batch_size"] if "max_cache_batch_size" in given else DEFAULT_BATCH
    _check(batch, options["max_length"], ctx)
    sampling = {name: options[name] for name in _SAMPLING if name in given}
    _check_sampling(sampling)
    return ServeOptions(
        **{name: options[name] for name in _SHARED},
        max_batch_size=batch,
        device=device_name(options["use_gpu"]),
        cors_origins=tuple(options["cors_origin"]),
        max_body_bytes=options["max_body_size"],
        sampling=sampling,
    )


def _check_sampling(sampling: dict[str, Any]) -> None:
    """Raises UserError for what every request would be refused for."""
    from pipelines.engine.sampling import SamplingParams

    SamplingParams(**sampling)


def _check(batch: int, length: int, ctx: click.Context) -> None:
    for option, value in (("--max-cache-batch-size", batch), ("--max-length", length)):
        if value < 1:
            raise click.UsageError(f"{option} is {value}; expected a whole number from 1 up", ctx)
