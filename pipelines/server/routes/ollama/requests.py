"""The requests of Ollama's interface, as editors' plugins send them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field

from pipelines.server.routes.fields import (
    FIRST_FAULT,
    Fields,
    Flag,
    Ids,
    LastN,
    ModelFields,
    NewTokens,
    Number,
    Seed,
    Text,
    Whole,
)
from pipelines.server.routes.generation_fields import GenerationFields, MarkedFields, SharedFields, Stops
from pipelines.server.routes.neutral import OLLAMA_NEUTRAL, Neutral
from pipelines.server.routes.openai.requests import TopLogprobs


class OllamaOptions(Fields):
    """How to sample, under Ollama's names."""

    neutral: ClassVar[dict[str, Neutral]] = OLLAMA_NEUTRAL

    num_predict: NewTokens | None = None
    temperature: Number | None = None
    top_k: Whole | None = None
    top_p: Number | None = None
    min_p: Number | None = None
    repeat_penalty: Annotated[Number, Field(gt=0)] | None = None
    repeat_last_n: LastN | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    seed: Seed | None = None
    stop: Stops | None = None


class OllamaFields(MarkedFields):
    """What Ollama's two routes for text share. A model's name, or an address for `keep_alive`, may be anything."""

    neutral: ClassVar[dict[str, Neutral]] = OLLAMA_NEUTRAL

    stream: Flag = True
    options: OllamaOptions = Field(default_factory=OllamaOptions)
    logprobs: Flag = False
    top_logprobs: TopLogprobs | None = None
    truncate: Flag = Field(True, description="Of a prompt that is too long the end is read; false: it is an error.")
    keep_alive: Any = Field(None, description="The model is always loaded.")

    def without_effect(self) -> Iterator[str]:
        """What needs another field."""
        if self.top_logprobs and not self.logprobs:
            yield "top_logprobs"

    def generation(self) -> GenerationFields:
        """The same in the names of the other APIs."""
        options = {name: getattr(self.options, name) for name in OllamaOptions.model_fields}
        shared = {name: getattr(self, name) for name in SharedFields.model_fields}
        n_predict = options.pop("num_predict")
        return GenerationFields.model_construct(stream=self.stream, n_predict=n_predict, **shared, **options)


class GenerateRequest(OllamaFields):
    """`POST /api/generate`."""

    prompt: Text = ""
    suffix: Text = ""
    system: Text = ""
    raw: Flag = False
    context: Ids | None = Field(None, description="The ids of an earlier answer, which this one goes on from.")

    def without_effect(self) -> Iterator[str]:
        """Ollama's templates have no place for a system's text around a gap."""
        yield from super().without_effect()
        if self.suffix and self.system:
            yield "system"


class OllamaMessage(Fields):
    """One message of a chat."""

    role: Text
    content: Text = ""


class OllamaChatRequest(OllamaFields):
    """`POST /api/chat`."""

    messages: Annotated[list[OllamaMessage], FIRST_FAULT] = Field(default_factory=list)


class ShowRequest(ModelFields):
    """`POST /api/show`."""

    neutral: ClassVar[dict[str, Neutral]] = OLLAMA_NEUTRAL

    name: Text | None = None


class PullRequest(ModelFields):
    """`POST /api/pull`."""

    neutral: ClassVar[dict[str, Neutral]] = OLLAMA_NEUTRAL

    name: Text | None = None
    stream: Flag = True
