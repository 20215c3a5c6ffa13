"""Fields that other servers know and this one does not compute, with the values that change nothing.

With another value the text would be another one, so that is refused by name. `ANYTHING` is for what never changes the
text here: how another server works inside, or a setting of something that is refused itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Neutral = Callable[[Any], bool]


def _is(*values: Any) -> Neutral:
    return lambda value: any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in values)


def _number(condition: Callable[[float], bool]) -> Neutral:
    return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and condition(value)


def _empty(value: Any) -> bool:
    return value in ("", [], {}) and not isinstance(value, (int, float))


def _no_adapter(value: Any) -> bool:
    """llama.cpp's list of adapters, all of them off."""
    return isinstance(value, list) and all(isinstance(one, dict) and one.get("scale") == 0 for one in value)


def _prompt_alone(value: Any) -> bool:
    """Ollama's template that adds nothing to the prompt, which Tabby sends."""
    return _empty(value) or (isinstance(value, str) and "".join(value.split()) == "{{.Prompt}}")


def ANYTHING(value: Any) -> bool:
    """Changes no text, whatever it is."""
    return True


_FALSE, _TRUE, _NONE = _is(False), _is(True), _number(lambda value: value <= 0)

_SAMPLING: dict[str, Neutral] = {
    "typical_p": _number(lambda value: value >= 1),
    "typ_p": _number(lambda value: value >= 1),
    "tfs_z": _number(lambda value: value >= 1),
    "top_a": _NONE,
    "top_n_sigma": _NONE,
    "xtc_probability": _NONE,
    "xtc_threshold": ANYTHING,
    "dry_multiplier": _NONE,
    "dry_base": ANYTHING,
    "dry_allowed_length": ANYTHING,
    "dry_penalty_last_n": ANYTHING,
    "dry_sequence_breakers": ANYTHING,
    "dynatemp_range": _NONE,
    "dynatemp_exponent": ANYTHING,
    "mirostat": _NONE,
    "mirostat_tau": ANYTHING,
    "mirostat_eta": ANYTHING,
    "adaptive_target": _number(lambda value: value < 0),
    "adaptive_decay": ANYTHING,
    "min_keep": _number(lambda value: value <= 1),
    "min_tokens": _NONE,
    "length_penalty": ANYTHING,
    "early_stopping": ANYTHING,
    "use_beam_search": _FALSE,
    "stop_token_ids": _empty,
    "allowed_token_ids": _empty,
    "bad_words": _empty,
    "logits_processors": _empty,
    "grammar": _empty,
    "grammar_lazy": ANYTHING,
    "grammar_triggers": ANYTHING,
    "preserved_tokens": ANYTHING,
    "lora": _no_adapter,
    "image_data": _empty,
    "multimodal_data": _empty,
    "post_sampling_probs": _FALSE,
    "backend_sampling": ANYTHING,
    "input_extra.time": ANYTHING,  # editors' own bookkeeping
    "id_slot": ANYTHING,  # there are no slots: any sequence finds any cached prefix
    "t_max_prompt_ms": ANYTHING,  # the prompt is read on: the next request finds it cached
    "n_keep": ANYTHING,
    "n_discard": ANYTHING,
    "n_cache_reuse": ANYTHING,
    "penalize_nl": ANYTHING,
    "speculative.n_max": ANYTHING,
    "speculative.n_min": ANYTHING,
    "speculative.p_min": ANYTHING,
}

_OPENAI: dict[str, Neutral] = {
    "store": ANYTHING,
    "metadata": ANYTHING,
    "service_tier": ANYTHING,
    "response_format": _is({"type": "text"}),
    "parallel_tool_calls": ANYTHING,
    "prompt_cache_key": ANYTHING,
    "prompt_cache_retention": ANYTHING,
    "safety_identifier": ANYTHING,
    "prediction": ANYTHING,
    "tools": _empty,
    "functions": _empty,
    "tool_choice": _is("none", "auto"),
    "function_call": _is("none", "auto"),
    "modalities": _is(["text"]),
    "audio": _empty,
    "web_search_options": _empty,
    "messages.name": ANYTHING,
    "messages.refusal": ANYTHING,
    "messages.annotations": ANYTHING,
    "messages.audio": _empty,
    "messages.tool_calls": _empty,
    "messages.function_call": _empty,
    "messages.images": _empty,
}

_VLLM: dict[str, Neutral] = {
    "skip_special_tokens": _TRUE,
    "spaces_between_special_tokens": ANYTHING,
    "include_stop_str_in_output": _FALSE,
    "add_special_tokens": ANYTHING,  # the models of this family add none
    "add_special": ANYTHING,
    "add_generation_prompt": ANYTHING,  # no text but a chat's has turns
    "continue_final_message": ANYTHING,
    "chat_template": _empty,
    "chat_template_kwargs": ANYTHING,  # there is no template
    "documents": _empty,
    "priority": ANYTHING,
    "request_id": ANYTHING,
    "truncate_prompt_tokens": lambda value: False,
    "prompt_logprobs": lambda value: False,
    "structured_outputs": _empty,
    "prompt_embeds": lambda value: False,
    **{f"guided_{kind}": lambda value: False for kind in ("json", "regex", "choice", "grammar")},
    "guided_decoding_backend": ANYTHING,  # how those four would be done
    "guided_whitespace_pattern": ANYTHING,
    "json_schema": lambda value: False,
    "regex": lambda value: False,
    "ebnf": lambda value: False,
}

_OLLAMA: dict[str, Neutral] = {
    "template": _prompt_alone,
    "format": _empty,
    "images": _empty,
    "think": _FALSE,
    "keep_alive": ANYTHING,
    "shift": ANYTHING,
    "insecure": ANYTHING,  # nothing is downloaded
    "verbose": ANYTHING,
    **{
        f"options.{name}": ANYTHING
        for name in (
            "num_ctx", "num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread", "numa", "low_vram", "f16_kv",
            "vocab_only", "use_mmap", "use_mlock", "logits_all", "embedding_only", "penalize_newline",
            "draft_num_predict",
        )
    },
}  # fmt: skip

NEUTRAL: dict[str, Neutral] = {**_SAMPLING, **_OPENAI, **_VLLM}
# Ollama has its sampling one level down, and names of its own that mean something else elsewhere.
OLLAMA_NEUTRAL: dict[str, Neutral] = {
    **NEUTRAL,
    **_OLLAMA,
    **{f"options.{name}": neutral for name, neutral in _SAMPLING.items()},
}
