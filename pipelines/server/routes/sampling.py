"""From a request's fields to sampling: what it states, else what the server was started with, else the API's own."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.engine.sampling import LLAMA_ORDER
from pipelines.server.http.api_error import ApiError
from pipelines.server.routes.generation_fields import GenerationFields, LogitBias
from pipelines.server.service import Service
from pipelines.text.limits import LineLimits
from weights.errors import UserError
from weights.tokenizers.tokenizer import Tokenizer

OPENAI_MAX_TOKENS = 16
OPENAI_DEFAULTS: dict[str, Any] = {
    "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "stop": (),
    "max_new_tokens": OPENAI_MAX_TOKENS,
}  # fmt: skip
# llama.cpp's defaults, which its routes' clients rely on where they say nothing.
LLAMA_DEFAULTS: dict[str, Any] = {
    "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.0,
    "penalty_last_n": 64, "penalize_prompt": True, "order": LLAMA_ORDER, "stop": (), "max_new_tokens": -1,
}  # fmt: skip
OLLAMA_DEFAULTS: dict[str, Any] = LLAMA_DEFAULTS | {"top_p": 0.9, "min_p": 0.0}

# llama.cpp's names of the filters. Those of None are off by the values that are accepted (neutral.py), or, "infill",
# merge candidates and may end early there, which the model's own end-of-text token does here.
_FILTERS = {"penalties": "penalties", "repeat_penalty": "penalties"} | {
    name: name for name in ("temperature", "top_k", "top_p", "min_p")
} | dict.fromkeys(("infill", "dry", "typ_p", "typical_p", "typical", "xtc", "top_n_sigma", "adaptive_p"))  # fmt: skip
_LETTERS = {
    "e": "penalties", "t": "temperature", "k": "top_k", "p": "top_p", "m": "min_p", "i": "infill", "d": "dry",
    "y": "typ_p", "x": "xtc", "s": "top_n_sigma",
}  # fmt: skip
# The least top_p that keeps no more than the most probable token.
_LEAST = sys.float_info.min
_MOST_BIAS = 100.0  # OpenAI's
# A name in an object that is an id: what C's strtol reads to its end, and vLLM's int().
_ID = re.compile(r"\s*[+-]?[0-9]{1,19}", re.ASCII)
# All stop strings together; all texts with a bias, which are encoded one by one.
MOST_STOP_CHARACTERS = 1 << 16
MOST_BIASED_TEXTS = 256
MOST_BIASED_CHARACTERS = 4096


def sampling(body: GenerationFields, defaults: Mapping[str, Any], service: Service) -> dict[str, Any]:
    """Keywords of `SamplingParams`, but for the seed. Raises ApiError."""
    found = {**defaults, **service.options.sampling, **_stated(body)}
    found["temperature"] = max(found["temperature"], 0.0)
    found["top_k"] = max(found["top_k"], 0)
    found["top_p"] = min(max(found["top_p"], _LEAST), 1.0)
    found["min_p"] = min(max(found["min_p"], 0.0), 1.0)
    found["logit_bias"] = tuple(biases(body.logit_bias, service.tokenizer))
    return found | {"ignore_eos": body.ignore_eos, "completion": body.completion, "strip": body.strip}


def _stated(body: GenerationFields) -> dict[str, Any]:
    stated: dict[str, Any] = {
        "max_new_tokens": max_new_tokens(body),
        "repetition_penalty": first(body.repetition_penalty, body.repeat_penalty),
        "penalty_last_n": first(body.repeat_last_n, body.penalty_last_n),
        "order": None if body.samplers is None else filter_order(body.samplers),
        "stop": None if body.stop is None else stop_strings(body.stop),
    }
    for name in ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty"):
        stated[name] = getattr(body, name)
    return {name: value for name, value in stated.items() if value is not None}


def max_new_tokens(body: GenerationFields) -> int | None:
    """How many tokens a request asks for, by the most specific of its names; -1: no limit; None: it does not say."""
    stated = first(body.n_predict, body.max_completion_tokens, body.max_tokens)
    return None if stated is None else max(stated, -1)


def sample_count(body: GenerationFields) -> int:
    """Completions of each prompt."""
    return int(first(body.n_cmpl, body.n, 1))


def first(*values: Any) -> Any:
    """The first value that is given."""
    return next((value for value in values if value is not None), None)


def stop_strings(stop: str | list[str]) -> tuple[str, ...]:
    """Stop strings; an empty one stops nothing. Raises ApiError for more text than anybody would wait for."""
    found = tuple(text for text in ([stop] if isinstance(stop, str) else stop) if text)
    size = sum(map(len, found))
    if size > MOST_STOP_CHARACTERS:
        raise ApiError(
            f"stop has {size} characters in all; expected at most {MOST_STOP_CHARACTERS}", param="stop"
        )  # fmt: skip
    return found


def filter_order(samplers: list[str] | str) -> tuple[str, ...]:
    """The filters that a list of samplers names, or a text of their letters, in its order; unknown ones are left out.

    llama.cpp leaves them out too.
    """
    names = [_LETTERS.get(letter, letter) for letter in samplers] if isinstance(samplers, str) else samplers
    known = (_FILTERS.get(name.replace("-", "_")) for name in names)
    return tuple(dict.fromkeys(name for name in known if name is not None))


def biases(stated: LogitBias | None, tokenizer: Tokenizer) -> Iterator[tuple[int, float]]:
    """Pairs of id and bias. Raises ApiError for an id that the vocabulary does not have, and for too many texts.

    An object's keys are ids, OpenAI's, whose biases end at 100 either way as vLLM's do; or texts, llama.cpp's. In a
    list a text is a text, whatever it spells.
    """
    pairs: list[tuple[int | str, float]] = stated if isinstance(stated, list) else []
    if isinstance(stated, dict):
        pairs = [(int(key) if _ID.fullmatch(key) else key, _bounded(bias)) for key, bias in stated.items()]
    texts = [key for key, _ in pairs if isinstance(key, str)]
    if len(texts) > MOST_BIASED_TEXTS or sum(map(len, texts)) > MOST_BIASED_CHARACTERS:
        raise ApiError(
            f"logit_bias has {len(texts)} texts of {sum(map(len, texts))} characters; expected at most "
            f"{MOST_BIASED_TEXTS} of {MOST_BIASED_CHARACTERS} in all, or token ids",
            param="logit_bias",
        )  # fmt: skip
    for key, bias in pairs:
        for token in _biased_ids(key, tokenizer):
            yield token, -math.inf if bias is False else bias


def _bounded(bias: float) -> float:
    return bias if bias is False else min(max(bias, -_MOST_BIAS), _MOST_BIAS)


def _biased_ids(key: int | str, tokenizer: Tokenizer) -> list[int]:
    if isinstance(key, str):
        return tokenizer.encode(key, parse_special=False)
    try:
        tokenizer.token_bytes(key)
    except UserError as error:
        raise ApiError(f"logit_bias: {error}", param="logit_bias") from None
    return [key]


class Deadline:
    """Whether so much time has passed since it was asked first; as in llama.cpp, nothing and 0 are no limit."""

    def __init__(self, milliseconds: int | None) -> None:
        self._seconds = math.inf if milliseconds is None or milliseconds <= 0 else milliseconds / 1000
        self._begun: float | None = None

    def __call__(self) -> bool:
        """See the class."""
        now = time.monotonic()
        self._begun = now if self._begun is None else self._begun
        return now - self._begun > self._seconds


def line_limits(body: GenerationFields) -> LineLimits | None:
    """`n_indent` and `t_max_predict_ms` of one sequence."""
    if not body.n_indent and body.t_max_predict_ms is None:
        return None
    return LineLimits(body.n_indent, Deadline(body.t_max_predict_ms))
