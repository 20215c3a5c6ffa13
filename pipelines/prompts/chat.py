"""Chat for the models that were trained for it: Refact's turns, each behind a marker token.

`<empty_output>SYSTEM …\\n<empty_output>USER …\\n<empty_output>ASSISTANT`, by the model's card. Models without the
marker complete the messages' texts, see server/chat.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from weights.tokenizers.tokenizer import Tokenizer

TURN_MARKER = "<empty_output>"
_ROLES = {"system": "SYSTEM", "developer": "SYSTEM", "user": "USER", "assistant": "ASSISTANT"}


def turn_marker(tokenizer: Tokenizer) -> int | None:
    """The token that begins a turn, None for a model without turns."""
    ids = tokenizer.encode(TURN_MARKER)
    return ids[0] if len(ids) == 1 and ids[0] in tokenizer.control_token_ids else None


def chat_prompt(tokenizer: Tokenizer, messages: Iterable[tuple[str, str]]) -> list[int] | None:
    """Token ids of (role, text) pairs and the beginning of the answer; None for a model without turns.

    A marker that is spelled in a message is only text; a role that the model does not know is the user's.
    """
    marker = turn_marker(tokenizer)
    if marker is None:
        return None
    ids = []
    for role, text in messages:
        ids += [marker, *tokenizer.encode(f"{_ROLES.get(role, 'USER')} {text}\n", parse_special=False)]
    return [*ids, marker, *tokenizer.encode(_ROLES["assistant"], parse_special=False)]
