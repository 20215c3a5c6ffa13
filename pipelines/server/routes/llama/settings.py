"""llama.cpp's `generation_settings`: how a text was sampled, in llama.cpp's names."""

from __future__ import annotations

import math
from typing import Any

from pipelines.engine.plan import Plan
from pipelines.prompts.prompt import Prompt
from pipelines.server.routes.llama.requests import LlamaCompletionRequest, LlamaFields
from pipelines.server.routes.sampling import LLAMA_DEFAULTS, sampling
from pipelines.server.service import DRAWN_SEEDS, Service

# What is not computed here has the value that changes nothing.
_NEUTRAL: dict[str, Any] = {
    "dynatemp_range": 0.0, "dynatemp_exponent": 1.0, "top_n_sigma": -1.0, "xtc_probability": 0.0,
    "xtc_threshold": 0.1, "typical_p": 1.0, "dry_multiplier": 0.0, "dry_base": 1.75, "dry_allowed_length": 2,
    "dry_penalty_last_n": -1, "dry_sequence_breakers": [], "mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1,
    "n_keep": 0, "n_discard": 0, "min_keep": 0, "grammar": "", "grammar_lazy": False, "grammar_triggers": [],
    "preserved_tokens": [], "chat_format": "Content-only", "post_sampling_probs": False, "lora": [],
    "adaptive_target": -1.0, "adaptive_decay": 0.9, "backend_sampling": False, "reasoning_format": "none",
    "reasoning_in_content": False, "generation_prompt": "", "speculative.types": "none",
}  # fmt: skip


def generation_settings(plan: Plan, body: LlamaFields, max_new_tokens: int, eos: int | None) -> dict[str, Any]:
    """The settings of one sequence; `max_new_tokens` as it was asked for, -1 without a limit; `eos` ends a text."""
    params = plan.params
    # llama.cpp's way of going on after the end of the text.
    unwanted = [(eos, -math.inf)] if params.ignore_eos and eos is not None else []
    return {
        "seed": plan.seed[0],
        "temperature": params.temperature,
        "top_k": params.top_k,
        "top_p": params.top_p,
        "min_p": params.min_p,
        "repeat_last_n": params.penalty_last_n,
        "repeat_penalty": params.repetition_penalty,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "stop": list(params.stop),
        "max_tokens": max_new_tokens,
        "n_predict": max_new_tokens,
        "ignore_eos": params.ignore_eos,
        "stream": bool(body.stream),
        "logit_bias": [{"bias": _finite(bias), "token": token} for token, bias in [*params.logit_bias, *unwanted]],
        "n_probs": body.n_probs,
        "samplers": [*params.order],
        "timings_per_token": body.timings_per_token,
        **_NEUTRAL,
    }


def default_settings(service: Service) -> dict[str, Any]:
    """What a request that states nothing is answered with: llama.cpp's defaults, and those given at the start."""
    body = LlamaCompletionRequest.model_validate({"prompt": ""})
    found = sampling(body, LLAMA_DEFAULTS, service)
    plan = Plan(Prompt([], ""), service.params(found, 0), (DRAWN_SEEDS[-1],))
    return generation_settings(plan, body, found["max_new_tokens"], service.tokenizer.eos_token_id)


def _finite(bias: float) -> float | None:
    """JSON has no infinity; null is what llama.cpp writes."""
    return bias if math.isfinite(bias) else None
