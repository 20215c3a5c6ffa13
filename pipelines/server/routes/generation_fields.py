"""What every request for text may state, whichever API's it is: each field in all its spellings."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from pipelines.server.routes.fields import (
    INTEGRAL,
    Count,
    Fields,
    Flag,
    LastN,
    ModelFields,
    NewTokens,
    Number,
    Seed,
    Text,
    Whole,
)  # fmt: skip

MAX_SAMPLES = 128
Samples: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SAMPLES, strict=True), INTEGRAL]
Stops: TypeAlias = Text | Annotated[list[Text], Field(max_length=1024)]
# OpenAI's object from id to bias, or llama.cpp's list of pairs, where a text stands for its tokens and false for a ban.
LogitBias: TypeAlias = dict[Text, Number | Flag] | list[Annotated[list[Any], Field(min_length=2, max_length=2)]]


class StreamOptions(Fields):
    """What a stream carries beside the text."""

    include_usage: Flag = False
    continuous_usage_stats: Flag = Field(False, description="The usage so far in every event, as vLLM has it.")
    include_obfuscation: Flag = Field(False, description="Random characters that hide how long a piece of text is.")


class GenerationFields(ModelFields):
    """None: what the route's API has as a default."""

    max_tokens: NewTokens | None = None
    max_completion_tokens: NewTokens | None = None
    n_predict: NewTokens | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    top_k: Whole | None = Field(None, description="Keep the K most probable tokens; 0 and below keep all.")
    min_p: Number | None = None
    repetition_penalty: Annotated[Number, Field(gt=0)] | None = None
    repeat_penalty: Annotated[Number, Field(gt=0)] | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    penalty_last_n: LastN | None = None
    repeat_last_n: LastN | None = Field(None, description="How many of the last ids penalties see; -1: all, 0: off.")
    logit_bias: LogitBias | None = None
    samplers: list[Text] | Text | None = Field(None, description="The filters to use, in their order.")
    ignore_eos: Flag = False
    n: Samples | None = None
    n_cmpl: Samples | None = None
    stop: Stops | None = None
    completion: Literal["full", "line", "block"] = Field(
        "full", description="Where to end: not before the model does, with the line, or with the indented block."
    )
    strip: Flag = Field(False, description="Leave out whitespace at the end.")
    token_healing: Flag | None = Field(
        None, description="Spell the end of a prompt of text again; by default where the route is an editor's."
    )
    cut_suffix: Flag = Field(True, description="End a gap's text where it repeats what stands after the gap.")
    seed: Seed | None = Field(None, description="-1 draws one.")
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    user: Text | None = Field(None, description="Written to the log line of the request.")
    cache_prompt: Flag | None = Field(None, description="false: read nothing from the prefix cache.")
    id_slot: Whole | None = Field(None, description="There are no slots; any sequence finds any cached prefix.")
    n_indent: Count = Field(0, description="End before a line that is indented less.")
    t_max_predict_ms: Whole | None = Field(None, description="End at a line end after this time.")
    t_max_prompt_ms: Whole | None = Field(None, description="The prompt is read on: the next request finds it cached.")
    response_fields: list[Text] | None = None
    return_tokens: Flag = False
    timings_per_token: Flag = False
    speculative: Flag = Field(True, description="false: no guesses are checked; the text is the same.")
