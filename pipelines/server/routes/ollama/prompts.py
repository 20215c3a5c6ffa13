"""The prompts of Ollama's routes: what is too long loses its oldest part, unless the request says `truncate: false`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pipelines.prompts.cut import STEPS, encode, end_of_text, keep_end, rounded_up
from pipelines.prompts.gap import Gap, prompt_room
from pipelines.prompts.prompt import Prompt
from pipelines.server.http.api_error import ApiError
from pipelines.server.routes.ollama.requests import GenerateRequest, OllamaChatRequest, OllamaFields
from pipelines.server.routes.openai.chat_completions import marked_prompt, messages_prompt
from pipelines.server.service import Service
from weights.tokenizers.tokenizer import Tokenizer

Messages = Sequence[tuple[str, str]]
# Tokens around a message's text: a line end, and a turn's marker and role.
_AROUND = 8


def generate_prompt(service: Service, body: GenerateRequest, max_new_tokens: int) -> Prompt:
    """The prompt of `/api/generate`: the ids of `context`, and after them the prompt, or the gap before the suffix."""
    gap = Gap(body.prompt, body.suffix) if body.suffix else None
    if gap is None and not body.system and not body.context:
        gap = service.marked_gap(body.prompt, body.gap_markers)
    if gap is not None:
        gap = replace(gap, whole=not body.truncate)  # where nothing may be cut, what fits is left whole
        prompt = service.gap(gap, max_new_tokens, "suffix", cut=body.cut_suffix, heal=body.token_healing)
        if prompt.truncated and not body.truncate:
            raise _too_long("the code around the gap")
    elif body.system:
        turns = [("system", body.system), ("user", body.prompt)]
        prompt = _fitting(service, body, turns, max_new_tokens, lambda kept: messages_prompt(service, kept))
    else:
        heal = max_new_tokens != 0 and service.heals(body.token_healing, editor=True)
        prompt = _fitting(
            service, body, [("user", body.prompt)], max_new_tokens,
            lambda kept: service.prompt(kept[0][1], "prompt", heal=heal),
        )  # fmt: skip
    return _after(service, body, prompt, max_new_tokens) if body.context else prompt


def chat_prompt(service: Service, body: OllamaChatRequest, messages: Messages, max_new_tokens: int) -> Prompt:
    """The prompt of `/api/chat`."""
    marked = marked_prompt(service, body, messages, max_new_tokens, whole=not body.truncate)
    if marked is not None:
        if marked.truncated and not body.truncate:
            raise _too_long("the code around the gap")
        return marked
    heal = max_new_tokens != 0 and service.heals(body.token_healing, editor=False)
    return _fitting(service, body, messages, max_new_tokens, lambda kept: messages_prompt(service, kept, heal))


def _fitting(
    service: Service, body: OllamaFields, messages: Messages, most: int, make: Callable[[Messages], Prompt]
) -> Prompt:
    """What `make` makes of the messages, or where that is too long, of what fits of them."""
    try:
        prompt = make(messages)
        service.check_length(prompt.tokens, most, "prompt")
        return prompt
    except ApiError as error:
        if not body.truncate or error.code != "context_length_exceeded":
            raise
    room = prompt_room(service.max_length, most)
    prompt = replace(make(newest(service.tokenizer, messages, room)), truncated=True)
    service.check_length(prompt.tokens, most, "prompt")
    return prompt


def newest(tokenizer: Tokenizer, messages: Messages, room: int) -> list[tuple[str, str]]:
    """What fits of messages into `room` tokens, as Ollama chooses it.

    The last one, from the beginning of a line on where it is too long by itself; then the system's, then the others,
    the newest first.
    """
    *before, (role, text) = [message for message in messages if message[1]] or messages
    ids = encode(tokenizer, end_of_text(tokenizer, text, room))
    kept = keep_end(tokenizer, ids, room - _AROUND, whole=True)
    left = room - _AROUND - len(kept)
    found = {len(before): (role, tokenizer.decode(kept))}
    order = sorted(range(len(before)), key=lambda index: (before[index][0] != "system", -index))
    for index in order:
        text = before[index][1]
        if len(text) > left * tokenizer.longest_token or (count := len(encode(tokenizer, text)) + _AROUND) > left:
            if before[index][0] == "system":
                continue
            break
        left -= count
        found[index] = before[index]
    return [found[index] for index in sorted(found)]


def _after(service: Service, body: GenerateRequest, prompt: Prompt, most: int) -> Prompt:
    """A prompt after the ids of an earlier answer, of which the newest stay."""
    before = service.prompt(body.context or [], "context")
    ids, truncated = before.ids, prompt.truncated
    if len(ids) + prompt.tokens > service.max_length - (most != 0) and body.truncate:
        room = prompt_room(service.max_length, most)
        cut = rounded_up(len(ids) - max(room - prompt.tokens, 0), room // STEPS)
        ids, truncated = ids[cut:], True
    found = replace(prompt, ids=[*ids, *prompt.ids], before=before.before + prompt.before, truncated=truncated)
    service.check_length(found.tokens, most, "prompt")
    return found


def _too_long(what: str) -> ApiError:
    message = f"{what} does not fit into this server's sequences; leave out truncate, or send less"
    return ApiError(message, param="truncate", code="context_length_exceeded")
