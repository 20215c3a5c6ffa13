"""The requests of llama.cpp's own interface, as editors send them.

What other llama.cpp settings would change here is refused unless it has its neutral value; what only concerns how
llama.cpp works inside (slots, its cache) is accepted with the value that describes what happens here anyway.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipelines.server.routes.openai_requests import Count, Number, Seed, Stop, Text, TokenId

_MOST = 2**31 - 1


class LlamaFields(BaseModel):
    """What `/completion` and `/infill` share. None: the default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    n_predict: Annotated[int, Field(ge=-1, le=_MOST, strict=True)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=100)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=_MOST, strict=True)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[Number, Field(gt=0, le=10)] | None = None
    repeat_last_n: Annotated[int, Field(ge=-1, le=_MOST, strict=True)] | None = Field(
        None, description="How many of the last ids the penalty is for; -1: all, 0: off."
    )
    seed: Seed | None = None
    stop: Stop | None = None
    ignore_eos: bool = Field(False, strict=True)
    stream: bool = Field(False, strict=True)
    n_indent: Count = 0
    t_max_predict_ms: Count | None = Field(None, description="End at a line end after this time.")
    t_max_prompt_ms: Count | None = Field(None, description="Answer without text if reading the prompt takes longer.")
    response_fields: list[str] | None = None
    return_tokens: bool = Field(False, strict=True)
    timings_per_token: bool = Field(False, strict=True)
    speculative: bool = Field(True, strict=True, description="false: no guesses are checked; the text is the same.")
    samplers: list[str] | None = Field(None, description="The filters to use; others are off. Their order is fixed.")
    model: str | None = None
    cache_prompt: Annotated[bool, Field(strict=True)] | None = Field(
        None, description="false: read nothing from the prefix cache."
    )
    id_slot: Annotated[int, Field(ge=-1, le=_MOST, strict=True)] | None = Field(
        None, description="There are no slots; any sequence finds any cached prefix."
    )
    mirostat: Literal[0] | None = Field(None, description="Not supported: 0 only.")
    presence_penalty: Literal[0] | None = Field(None, description="Not supported: 0 only.")
    frequency_penalty: Literal[0] | None = Field(None, description="Not supported: 0 only.")
    n_probs: Literal[0] | None = Field(None, description="Use /v1/completions with logprobs.")
    grammar: Literal[""] | None = Field(None, description="Not supported: empty only.")


class LlamaCompletionRequest(LlamaFields):
    """`POST /completion`."""

    prompt: Text | list[TokenId]


class ExtraContext(BaseModel):
    """Text of another file."""

    model_config = ConfigDict(extra="ignore")  # llama.vscode adds its own bookkeeping
    text: Text
    filename: str = ""


class InfillRequest(LlamaFields):
    """`POST /infill`."""

    input_prefix: Text = ""
    input_suffix: Text = ""
    input_extra: list[ExtraContext] = Field(default_factory=list)
    prompt: Text = Field("", description="The beginning of the text in the gap.")
