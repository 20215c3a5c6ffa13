"""The requests of llama.cpp's own interface, as editors send them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field

from pipelines.server.routes.fields import FIRST_FAULT, INTEGRAL, Fields, Flag, Ids, ModelFields, Text, TokenId
from pipelines.server.routes.generation_fields import GenerationFields, MarkedFields
from pipelines.server.routes.openai.requests import Message

Probabilities: TypeAlias = Annotated[int, Field(ge=0, le=1000, strict=True), INTEGRAL]
FieldPath: TypeAlias = Annotated[Text, Field(max_length=256)]
Mixed: TypeAlias = Annotated[list[TokenId | Text], FIRST_FAULT]


class PromptObject(Fields):
    """A prompt with a name for its parts; there are only texts."""

    prompt_string: Text


One: TypeAlias = Text | Mixed | PromptObject


def _prompts(value: Any) -> Any:
    """Several prompts where there are several texts, or anything that is a whole prompt by itself; else one.

    Ids and texts side by side are one prompt, as in llama.cpp.
    """
    if not isinstance(value, list):
        return [value]
    whole = any(isinstance(part, (list, dict)) for part in value)
    return value if value and (whole or all(isinstance(part, str) for part in value)) else [value]


class LlamaFields(GenerationFields):
    """What llama.cpp's two routes for text share."""

    n_probs: Probabilities = Field(0, description="Log-probabilities of so many tokens beside each.")
    response_fields: Annotated[list[FieldPath], FIRST_FAULT, Field(max_length=256)] | None = None
    return_tokens: Flag = False


class LlamaCompletionRequest(LlamaFields, MarkedFields):
    """`POST /completion`."""

    prompt: Annotated[list[One], FIRST_FAULT, BeforeValidator(_prompts), Field(min_length=1)]


class ExtraContext(Fields):
    """Text of another file; editors add their own bookkeeping."""

    text: Text
    filename: Text = ""


class InfillRequest(LlamaFields):
    """`POST /infill`."""

    input_prefix: Text = ""
    input_suffix: Text = ""
    input_extra: Annotated[list[ExtraContext], FIRST_FAULT] = Field(default_factory=list)
    prompt: Text = Field("", description="The beginning of the text in the gap.")


class TokenizeRequest(ModelFields):
    """`POST /tokenize`, llama.cpp's with `content` and vLLM's with `prompt`."""

    content: Text | Mixed | None = None
    prompt: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    return_token_strs: Flag = False
    parse_special: Flag = True
    with_pieces: Flag = False

    def without_effect(self) -> Iterator[str]:
        """What belongs to the other of the two, or to another of the three texts."""
        stated = [name for name in ("content", "prompt", "messages") if getattr(self, name) is not None]
        yield from stated[1:]
        if self.return_token_strs and "content" in stated:
            yield "return_token_strs"
        if self.with_pieces and "content" not in stated:
            yield "with_pieces"


class DetokenizeRequest(ModelFields):
    """`POST /detokenize`."""

    tokens: Ids


class TemplateRequest(ModelFields):
    """`POST /apply-template`."""

    messages: Annotated[list[Message], FIRST_FAULT, Field(min_length=1)]
