"""One completion that is wanted, with its text: what the engine's request and the chain of its text are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines.engine.sampling import SamplingParams
from pipelines.engine.sequence import ALONE, SequenceRequest
from pipelines.prompts.prompt import Prompt
from pipelines.text.completion_mode import TextFilter


@dataclass(frozen=True)
class Plan:
    """A prompt, how to sample, and a seed. Samples of one prompt share the `Prompt` object, which is read once.

    `top_logprobs` is the number of alternatives beside each token, None for no log-probabilities; `limits` ends the
    text by a rule of the caller's; what was read and written is shared with plans of the same `salt` only.
    """

    prompt: Prompt
    params: SamplingParams
    seed: tuple[int, ...]
    top_logprobs: int | None = None
    prompt_logprobs: bool = False
    use_cache: bool = True
    limits: TextFilter | None = None
    speculative: bool = True
    salt: str | None = None

    def entries(self, new_tokens: int) -> int:
        """How many log-probabilities are told of so many new tokens, and of the prompt where that is asked for."""
        if self.top_logprobs is None:
            return 0
        return (new_tokens + self.prompt_logprobs * len(self.prompt.ids)) * (self.top_logprobs + 1)

    def request(self, name: str, after: str | None = None) -> SequenceRequest:
        """What the engine is asked; `after` names a sequence that reads the same prompt before."""
        params = replace(self.params, stop=()) if self.params.stop else self.params  # texts are not the engine's
        # What was read before has no logits left: with a salt of its own every position runs.
        salt = ALONE + (after or name) if self.prompt_logprobs or not self.use_cache else self.salt
        scored = self.prompt_logprobs and after is None
        watched = bool(self.params.stop or self.params.completion != "full" or self.limits or self.prompt.after)
        return SequenceRequest(
            name, self.prompt.ids, params, self.seed, self.top_logprobs, scored, salt, after, self.speculative,
            healing=self.prompt.healing, watched=watched,
        )  # fmt: skip
