"""The arguments of the application on Ray Serve: the server's options, by the names of their fields."""

from __future__ import annotations

from dataclasses import fields
from math import inf
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipelines.server.options import DEFAULT_BATCH, ServeOptions, read_api_keys
from weights.errors import UserError

# Serve's own, or without meaning there: a replica has no place of its own to keep its cache in.
_ELSEWHERE = ("host", "port", "save_to_serialized_model_path", "sampling", "cache_dir", "cache_dir_bytes")
# What the command line's types refuse. Length 0 is none given; Serve has no queue that takes nobody.
_LEAST = {
    "max_length": 0, "max_batch_size": 1, "threads": 1, "max_queue_size": 1, "max_body_bytes": 1, "shutdown_timeout": 0,
    "stall_timeout": 1,
}  # fmt: skip
_CHOICES = {"device": ("cpu", "gpu"), "token_healing": ("auto", "on", "off")}


def options_of(args: dict[str, Any]) -> ServeOptions:
    """The server's options from an application's arguments, numbers also as text. Raises UserError for what is none."""
    known = {field.name for field in fields(ServeOptions)} - {*_ELSEWHERE, "api_keys"}
    given = {"max_batch_size": DEFAULT_BATCH, "max_length": 0} | args
    keys = read_api_keys(given.pop("api_key", None), given.pop("api_key_file", None))
    unknown = sorted(set(given) - known)
    if unknown:
        expected = ", ".join(sorted({*known, "api_key", "api_key_file"}))
        raise UserError(f"{unknown[0]!r} is no argument of the application; expected one of {expected}")
    try:
        options: ServeOptions = TypeAdapter(ServeOptions).validate_python({**given, "api_keys": keys})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"the argument {first['loc'][0]} is {first['input']!r}; {first['msg']}") from None
    for name, least in _LEAST.items():
        value = getattr(options, name)
        if value is not None and not least <= value < inf:
            raise UserError(f"the argument {name} is {value}; expected a number from {least} up")
    for name, choices in _CHOICES.items():
        if getattr(options, name) not in choices:
            raise UserError(f"the argument {name} is {getattr(options, name)!r}; expected {' or '.join(choices)}")
    return options
