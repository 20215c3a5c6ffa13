"""The requests of OpenAI's HTTP interface, and of those that speak a part of it.

Limits of its own beside generation_fields.py: which fields there are, their types and ranges.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from pipelines.server.routes.fields import (
    FIRST_FAULT,
    INTEGRAL,
    MOST,
    MOST_TOKENS,
    Fields,
    Flag,
    Ids,
    Number,
    Seed,
    Text,
    Texts,
)
from pipelines.server.routes.generation_fields import GenerationFields, MarkedFields, Samples


def _prompt(value: Any) -> Any:
    """Says what a prompt may be, rather than pydantic's four complaints."""
    kinds = (str,) if isinstance(value, str) else _kinds(value)
    if kinds is None:
        raise ValueError("expected text, a list of texts, token ids, or a list of lists of them")
    if value == []:
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


Prompt: TypeAlias = Annotated[Text | Texts | Ids | Annotated[list[Ids], FIRST_FAULT], BeforeValidator(_prompt)]
TopLogprobs: TypeAlias = Annotated[int, Field(ge=0, le=20, strict=True), INTEGRAL]
Penalty: TypeAlias = Annotated[Number, Field(ge=-2, le=2)]


def _count(value: Any) -> Any:
    """Chat's flag where a number belongs: nothing is asked for, or the most probable token."""
    return {False: None, True: 1}[value] if isinstance(value, bool) else value


class StreamOptions(Fields):
    """What a stream carries beside the text."""

    include_usage: Flag | None = None
    continuous_usage_stats: Flag = Field(False, description="The usage so far in every event, as vLLM has it.")
    include_obfuscation: Flag = Field(False, description="Random characters that hide how long a piece of text is.")


class OpenAIFields(GenerationFields):
    """What completions, chat and Mistral's route share, in OpenAI's ranges."""

    max_tokens: Annotated[int, Field(ge=-1, le=MOST_TOKENS, strict=True), INTEGRAL] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = Field(None, description="0 keeps the most probable token.")
    top_k: Annotated[int, Field(ge=-1, le=MOST, strict=True), INTEGRAL] | None = Field(
        None, description="Keep the K most probable tokens; 0 and -1 keep all."
    )
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: Flag = Field(False, description="The ids of prompt and text beside them, as vLLM has it.")


class ResponseFormat(Fields):
    """Only free text."""

    type: Literal["text"]


class ScoredFields(OpenAIFields, MarkedFields):
    """What only OpenAI's own two have."""

    return_tokens_as_token_ids: Flag = Field(False, description="Log-probabilities name tokens `token_id:N`.")
    response_format: ResponseFormat | None = None


class CompletionRequest(ScoredFields):
    """`POST /v1/completions`, and the routes that are it under another name."""

    prompt: Prompt
    suffix: Text | None = Field(None, description="Fill in the middle; an empty text: with nothing after the gap.")
    echo: Flag | None = None
    logprobs: Annotated[TopLogprobs | None, BeforeValidator(_count)] = None
    best_of: Samples | None = None


class FimRequest(OpenAIFields):
    """`POST /v1/fim/completions`, as Mistral has it."""

    prompt: Text
    suffix: Text = ""
    random_seed: Seed | None = None


class ContentPart(Fields):
    """A part of a message; there are only texts."""

    type: Literal["text"]
    text: Text


class Message(Fields):
    """One message of a chat. The role does not matter to a model that only completes text."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[ContentPart], FIRST_FAULT] = ""  # an SDK's own message may have none

    @property
    def text(self) -> str:
        """The message's text: of several parts a line each, as llama.cpp and vLLM have it."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class ChatRequest(ScoredFields):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], FIRST_FAULT, Field(min_length=1)]
    add_generation_prompt: Flag = Field(True, description="A base model has no turns, with which alone it matters.")
    continue_final_message: Flag = Field(False, description="What a base model does anyway.")
    logprobs: Flag | None = None
    top_logprobs: TopLogprobs | None = None
