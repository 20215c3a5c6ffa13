"""The settings of `replit --serve`, and its options on the command line. No heavy imports."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import click
from click.core import ParameterSource

from pipelines.terminal.options import MODEL, SAMPLING, FiniteRange, chosen, device_name
from weights.errors import UserError, reason
from weights.files.paths import read_stream

Command = TypeVar("Command", bound=Callable[..., Any])

# A web origin as browsers send it: scheme, name or address, and the port if it is not the scheme's own.
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*://)?[^/\s?#]+")
# Sequences at once where the command line does not say: a server for one at a time is rarely wanted.
DEFAULT_BATCH = 16


@dataclass(frozen=True)
class ServeOptions:
    """Everything the server was started with. `None` means: not given; so does 0 of length and sequences (room.py)."""

    model: str = "nano"
    weight_path: str | None = None
    config_path: str | None = None
    tokenizer_path: str | None = None
    quantization_encoding: str | None = None
    max_length: int = 512
    allow_longer: bool = False
    max_batch_size: int = DEFAULT_BATCH
    serialized_model_path: str | None = None
    serialized_model_sha256: str | None = None
    save_to_serialized_model_path: str | None = None
    device: str = "cpu"
    threads: int | None = None
    mmap: bool | None = None
    kv_cache_encoding: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    allowed_hosts: tuple[str, ...] = ()
    stall_timeout: float = 60.0
    cors_origins: tuple[str, ...] = ()
    max_queue_size: int = 128
    max_body_bytes: int = 4 << 20
    shutdown_timeout: float = 30.0
    log_format: Literal["text", "json"] = "text"
    served_model_name: str | None = None
    prefix_caching: bool = True
    prefix_cache_scope: Literal["all", "key", "user"] = "all"
    suffix_first: bool | None = None
    cache_dir: str | None = None
    cache_dir_bytes: int = 4 << 30
    draft: str = "auto"
    page: bool = True
    strict_fields: bool = False
    check_model: bool = False
    strict_infill: bool = False
    open_metrics: bool = False
    token_healing: str = "auto"
    # Sampling options given at start; they replace the defaults of a request, not what it states.
    sampling: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What clients call the model: text, also where a path's bytes are none."""
        name = self.served_model_name or self.weight_path or self.model
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


_OPTIONS = (
    click.option("--host", default="127.0.0.1", show_default=True, help="Where --serve listens."),
    click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
                 help="Where --serve listens; 0: any free port."),
    click.option("--api-key", envvar="REPLIT_API_KEY", show_envvar=True, metavar="KEY",
                 help="The key that --serve asks of its clients."),
    click.option("--api-key-file", metavar="PATH",
                 help="A file of keys, one a line: those on the command line are seen by other users of the machine."),
    click.option("--allowed-host", multiple=True, metavar="NAME",
                 help="Answer requests for this name and this machine's own names only; may be repeated, * allows all "
                      "[default: the machine's own, where there is no key and the host is loopback]."),
    click.option("--cors-origin", multiple=True, metavar="ORIGIN",
                 help="A web origin that may call the server; may be repeated, * allows all."),
    click.option("--served-model-name", metavar="NAME",
                 help="What clients call the model [default: --weight-path, else --model]."),
    click.option("--max-queue-size", type=click.IntRange(0), default=128, show_default=True, metavar="N",
                 help="Sequences that may wait; further requests are answered with 429."),
    click.option("--max-body-size", type=click.IntRange(1), default=4 << 20, show_default=True, metavar="BYTES",
                 help="Longest request body."),
    click.option("--shutdown-timeout", type=FiniteRange(0), default=30.0, show_default=True, metavar="SECONDS",
                 help="How long running requests may go on after SIGTERM."),
    click.option("--stall-timeout", type=FiniteRange(1), default=60.0, show_default=True, metavar="SECONDS",
                 help="Without a pass of the model for so long, while sequences wait, the server is not healthy."),
    click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
                 help="How the server writes its log."),
    click.option("--prefix-caching/--no-prefix-caching", default=True, show_default=True,
                 help="Keep the cache of earlier prompts for later ones that begin alike."),
    click.option("--prefix-cache-scope", type=click.Choice(["all", "key", "user"]), default="all", show_default=True,
                 help="Who shares that cache and guesses: all clients, those of one key, or of one key and one user."),
    click.option("--cache-dir", type=click.Path(file_okay=False), metavar="DIR",
                 help="Keep that cache over a restart, in this folder."),
    click.option("--cache-dir-size", "cache_dir_bytes", type=click.IntRange(1), default=4 << 30, show_default=True,
                 metavar="BYTES", help="Most that --cache-dir may take."),
    click.option("--page/--no-page", default=True, show_default=True,
                 help="Show a page with an editor to browsers that open the address."),
    click.option("--strict-fields", is_flag=True, help="Refuse requests with fields that are not known."),
    click.option("--check-model", is_flag=True, help="Refuse requests for a model of another name."),
    click.option("--strict-infill", is_flag=True,
                 help="Refuse to fill in the middle by a model that was not trained for it."),
    click.option("--open-metrics", is_flag=True, help="Give /metrics without the key."),
)  # fmt: skip


def serve_click_options(command: Command) -> Command:
    """Adds the options of `--serve` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


SERVER_ONLY = frozenset(option.name for option in serve_click_options(click.Command("serve")).params)
"""Options that nothing but a server has a use for."""

_SAMPLING = tuple(name for name in SAMPLING if name not in ("seed", "strip"))  # which a request states
_SHARED = (
    *MODEL, "save_to_serialized_model_path", "host", "port", "stall_timeout", "max_queue_size", "shutdown_timeout",
    "log_format", "served_model_name", "prefix_caching", "prefix_cache_scope", "cache_dir", "cache_dir_bytes",
    "suffix_first", "page", "strict_fields", "check_model", "strict_infill", "open_metrics", "token_healing",
)  # fmt: skip
_OTHERS = (
    "serve", "debug", "max_cache_batch_size", "cors_origin", "max_body_size", "use_gpu", "api_key",
    "api_key_file", "allowed_host",
)  # fmt: skip


def from_command_line(ctx: click.Context, options: dict[str, Any]) -> ServeOptions:
    """The settings that a command line gives. Raises click.UsageError for options that a server has no use for."""
    given = {name for name in options if ctx.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)}
    useless = sorted(given - {*_SAMPLING, *_SHARED, *_OTHERS})
    if useless:
        names = ", ".join("--" + name.replace("_", "-") for name in useless)
        raise click.UsageError(f"{names} has no meaning with --serve; leave it out", ctx)
    for name in ("host", "served_model_name", "cache_dir", "allowed_host", "api_key_file"):
        if options[name] in ("", ("",)):  # a variable of a shell that is not set
            raise click.UsageError(f"--{name.replace('_', '-')} is empty; give it a value, or leave it out", ctx)
    batch, length = options["max_cache_batch_size"], options["max_length"]
    _check(batch, length, ctx)
    sampling = {name: options[name] for name in _SAMPLING if name in given}
    _check_sampling(sampling)
    if options["cache_dir"] is not None and options["use_gpu"] is not None:
        raise click.UsageError("--cache-dir is for the CPU; expected it without --use-gpu: leave one of them out", ctx)
    if options["cache_dir"] is not None and not options["prefix_caching"]:
        raise click.UsageError("--cache-dir keeps the prefix cache; expected it without --no-prefix-caching", ctx)
    if "cache_dir_bytes" in given and options["cache_dir"] is None:
        raise click.UsageError("--cache-dir-size is the size of --cache-dir; expected that too", ctx)
    keys = read_api_keys(options["api_key"], options["api_key_file"])
    if options["open_metrics"] and not keys:
        raise click.UsageError("--open-metrics opens what a key closes; expected --api-key too, or leave it out", ctx)
    for origin in options["cors_origin"]:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise click.UsageError(
                f"--cors-origin is {origin!r}; expected what browsers send: https://editor.example, with :PORT if it "
                "has one and no slash at the end, or *",
                ctx,
            )
    return ServeOptions(
        **chosen(options, _SHARED) | {"max_length": length if "max_length" in given else 0},
        max_batch_size=batch if "max_cache_batch_size" in given else 0,
        device=device_name(options["use_gpu"]),
        api_keys=keys,
        allowed_hosts=tuple(options["allowed_host"]),
        cors_origins=tuple(options["cors_origin"]),
        max_body_bytes=options["max_body_size"],
        sampling=sampling,
    )


def read_api_keys(key: str | None, path: str | None) -> tuple[str, ...]:
    """The keys of which clients must bring one, none where none is asked for.

    Raises UserError for an empty one, which would leave the server open to everybody, for one that no request can
    bring, and for a file that cannot be read.
    """
    if path is not None and key is not None:
        raise UserError("--api-key-file and --api-key (or REPLIT_API_KEY) are both given; expected one of them")
    source = "--api-key or REPLIT_API_KEY"
    if key is None and path is None:
        key = os.environ.get("REPLIT_API_KEY")  # click takes an empty variable for none
    if path is not None:
        keys, source = _lines(path), f"--api-key-file {path}"
    elif key is not None:
        keys = (key,)
    else:
        return ()
    for found in keys or ("",):
        if not found or not found.isprintable() or " " in found:
            what = "is empty" if not found.strip() else "holds white space or control characters"
            raise UserError(f"{source} {what}; expected a key of printable characters, or no such option for a server "
                            "without a key")  # fmt: skip
    return keys


def _lines(path: str) -> tuple[str, ...]:
    """The lines of a file of keys, a comment in none of them: `#` may begin a key."""
    try:
        data = read_stream(path, _MOST_KEY_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read --api-key-file {path}: {reason(error)}; expected a file with the key") from None
    text = data.decode("utf-8-sig", errors="replace")
    if len(data) > _MOST_KEY_BYTES or "\ufffd" in text:
        raise UserError(f"--api-key-file {path} holds no key; expected one a line, {_MOST_KEY_BYTES} bytes at most")
    return tuple(line for line in text.replace("\r\n", "\n").split("\n") if line)


_MOST_KEY_BYTES = 1 << 16


def _check_sampling(sampling: dict[str, Any]) -> None:
    """Raises UserError for what every request would be refused for."""
    from pipelines.engine.sampling import SamplingParams

    SamplingParams(**sampling)


def _check(batch: int, length: int, ctx: click.Context) -> None:
    for option, value in (("--max-cache-batch-size", batch), ("--max-length", length)):
        if value < 1:
            raise click.UsageError(f"{option} is {value}; expected a whole number from 1 up", ctx)
