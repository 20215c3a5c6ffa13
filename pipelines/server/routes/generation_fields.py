"""What requests for text may state, each field in all its spellings. A route declares those that do something there."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator

from pipelines.server.routes.fields import (
    FIRST_FAULT,
    INTEGRAL,
    Count,
    Flag,
    LastN,
    ModelFields,
    NewTokens,
    Number,
    Seed,
    Text,
    Texts,
    TokenId,
    Whole,
)

MAX_SAMPLES = 128
Samples: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SAMPLES, strict=True), INTEGRAL]
MAX_STOPS = 1024
Stops: TypeAlias = Text | Annotated[Texts, Field(max_length=MAX_STOPS)]
MAX_BIASES = 2048


def _biases(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """The first complaint only: a type of two kinds has two for each of thousands of wrong ones."""
    if not isinstance(value, (dict, list)):
        raise ValueError("expected an object of biases by token, or a list of pairs")
    if len(value) > MAX_BIASES:
        raise ValueError(f"it has {len(value)} entries; expected at most {MAX_BIASES}")
    for pair in map(list, value.items()) if isinstance(value, dict) else value:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError("expected pairs of a token and its bias")
        if not isinstance(pair[0], (int, str)) or isinstance(pair[0], bool):
            raise ValueError(f"found {str(pair[0])[:40]}; expected token ids or texts")
        if not isinstance(pair[1], (int, float)) or pair[1] is True:
            raise ValueError(f"{str(pair[0])[:40]!r} has no number; expected one, or false")
    return validate(value)


# OpenAI's object from id to bias, or llama.cpp's list of pairs, where a text stands for its tokens and false for a ban.
LogitBias: TypeAlias = Annotated[
    dict[Text, Number | Flag] | Annotated[list[tuple[TokenId | Text, Number | Flag]], FIRST_FAULT],
    WrapValidator(_biases),
]


# As vLLM has it: an empty one would look like one that keeps users apart.
Salt: TypeAlias = Annotated[Text, Field(min_length=1, max_length=1024)]


class SharedFields(ModelFields):
    """What every route for text takes under the same name, Ollama's too."""

    logit_bias: LogitBias | None = None
    samplers: Texts | Text | None = Field(None, description="The filters to use, in their order.")
    ignore_eos: Flag = False
    completion: Literal["full", "line", "block"] = Field(
        "full", description="Where to end: not before the model does, with the line, or with the indented block."
    )
    strip: Flag = Field(False, description="Leave out whitespace at the end.")
    token_healing: Flag | None = Field(
        None, description="Spell the end of a prompt of text again; by default where the route is an editor's."
    )
    cut_suffix: Flag = Field(True, description="End a gap's text where it repeats what stands after the gap.")
    user: Text | None = Field(None, description="Written to the log line of the request.")
    cache_prompt: Flag | None = Field(None, description="false: read nothing from the prefix cache.")
    cache_salt: Salt | None = Field(
        None, description="Cache and guesses are shared with requests of the same salt only, as in vLLM."
    )
    n_indent: Count = Field(0, description="End before a line that is indented less.")
    t_max_predict_ms: Whole | None = Field(None, description="End at a line end after this time.")
    speculative: Flag | dict[Text, Any] = Field(
        True,
        description="false: no guesses are checked; the text is the same. An object is llama.cpp's, without effect.",
    )


class MarkedFields(SharedFields):
    """A route whose prompt may spell a gap."""

    gap_markers: Flag = Field(True, description="A prompt that spells a gap by markers is read as that gap.")


class GenerationFields(SharedFields):
    """What OpenAI's routes and llama.cpp's share. None: what the route's API has as a default."""

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
    n: Samples | None = None
    n_cmpl: Samples | None = None
    stop: Stops | None = Field(None, description="Editors send dozens; an empty text stops nothing.")
    seed: Seed | None = Field(None, description="-1 draws one.")
    stream: Flag | None = None
    timings_per_token: Flag = Field(False, description="How long it took so far, in every event.")
