"""The requests of the HTTP interface: which fields there are, their types, limits and defaults.

A field that is not here is refused by name. What only its neutral value can mean here (penalties that are not computed,
for instance) is accepted with that value and refused with any other.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

MAX_SAMPLES = 128
_MOST = 2**31 - 1
_MOST_TEXT = 16 << 20


def _text(value: str) -> str:
    """JSON can carry half a surrogate pair, which is no text."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"holds a lone surrogate at position {error.start}; expected text") from None
    return value


Text: TypeAlias = Annotated[str, AfterValidator(_text)]
TokenId: TypeAlias = Annotated[int, Field(ge=0, le=_MOST, strict=True)]
Number: TypeAlias = Annotated[float, Field(strict=True)]
Seed: TypeAlias = Annotated[int, Field(ge=-1, le=2**63 - 1, strict=True)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=_MOST, strict=True)]


def _prompt(value: Any) -> Any:
    """Says what a prompt may be, rather than pydantic's four complaints."""
    kinds = (str,) if isinstance(value, str) else _kinds(value)
    if kinds is None:
        raise ValueError("expected text, a list of texts, token ids, or a list of lists of them")
    if value in ("", []) or (isinstance(value, list) and any(part in ("", []) for part in value)):
        raise ValueError("the prompt is empty; expected at least one token")
    return value


def _kinds(value: Any) -> tuple[type, ...] | None:
    if not isinstance(value, list):
        return None
    if all(isinstance(part, str) for part in value):
        return (str,)
    if all(_is_id(part) for part in value):
        return (int,)
    if all(isinstance(part, list) and all(map(_is_id, part)) for part in value):
        return (list,)
    return None


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


Ids: TypeAlias = list[TokenId]
Prompt: TypeAlias = Annotated[Text | list[Text] | Ids | list[Ids], BeforeValidator(_prompt)]
Stop: TypeAlias = (
    Annotated[Text, Field(min_length=1)] | Annotated[list[Annotated[Text, Field(min_length=1)]], Field(max_length=16)]
)


class StreamOptions(BaseModel):
    """What a stream carries beside the text."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = Field(False, strict=True)


class SamplingFields(BaseModel):
    """What completions and chat share. None: the server's default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str | None = Field(None, description="The served model; may be left out.")
    max_tokens: Count | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=_MOST, strict=True)] | None = Field(
        None, description="Keep the K most probable tokens; 0 and -1 keep all."
    )
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0, le=10)] | None = None
    ignore_eos: bool = Field(False, strict=True)
    n: Annotated[int, Field(ge=1, le=MAX_SAMPLES, strict=True)] | None = None
    stop: Stop | None = None
    completion: Literal["full", "line", "block"] = Field(
        "full", description="Where to end: not before the model does, with the line, or with the indented block."
    )
    strip: bool = Field(False, strict=True, description="Leave out whitespace at the end.")
    speculative: bool = Field(True, strict=True, description="false: no guesses are checked; the text is the same.")
    seed: Seed | None = Field(None, description="-1 draws one.")
    stream: Annotated[bool, Field(strict=True)] | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="Written to the log line of the request.")
    presence_penalty: Literal[0] | None = Field(None, description="Not supported: 0 only.")
    frequency_penalty: Literal[0] | None = Field(None, description="Not supported: 0 only.")
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = Field(
        None, description="Not supported: empty only."
    )


class CompletionRequest(SamplingFields):
    """`POST /v1/completions`."""

    prompt: Prompt
    suffix: Text | None = None
    echo: Annotated[bool, Field(strict=True)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5, strict=True)] | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_SAMPLES, strict=True)] | None = None


class ContentPart(BaseModel):
    """A part of a message; there are only texts."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: Text


class Message(BaseModel):
    """One message of a chat. The role does not matter to a model that only completes text."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[ContentPart]
    name: str | None = None

    @property
    def text(self) -> str:
        """The message's text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ResponseFormat(BaseModel):
    """Only free text."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]


class ChatRequest(SamplingFields):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: Annotated[bool, Field(strict=True)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20, strict=True)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = Field(None, description="Not supported: empty only.")


class TokenizeRequest(BaseModel):
    """`POST /tokenize`, as llama.cpp has it."""

    model_config = ConfigDict(extra="forbid")
    content: Text
    add_special: bool = Field(False, description="The models of this family add none.")
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeRequest(BaseModel):
    """`POST /detokenize`, as llama.cpp has it."""

    model_config = ConfigDict(extra="forbid")
    tokens: Ids
