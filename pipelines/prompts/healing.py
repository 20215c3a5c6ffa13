"""Token healing, the prompt's part: how much of its end is taken back.

As many tokens as there are while some token of the vocabulary spans the cut: for `import nump` the token ` nump`,
since there is ` numpy`; for a line's indentation its spaces, since there are tokens of more. engine/healing.py has the
tokens drawn that spell them again, text/chain.py leaves out what the prompt shows already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipelines.engine.healing import spelling
from pipelines.prompts.prompt import Prompt
from weights.tokenizers.tokenizer import Tokenizer

# Characters at the end of a text that are looked at; no token is as long.
_WINDOW = 256


def healed(tokenizer: Tokenizer, prompt: Prompt) -> Prompt:
    """A prompt of text without its last tokens, which the completion spells again. One token stays."""
    count, end = taken_back(tokenizer, prompt.ids[1:])
    if not count:
        return prompt
    return replace(prompt, ids=prompt.ids[:-count], healing=end, taken_back=count)


def split_text(tokenizer: Tokenizer, text: str) -> tuple[str, bytes, int]:
    """A text without what is taken back at its end, those bytes, and how many tokens they are."""
    ids = tokenizer.encode(text[-_WINDOW:], parse_special=False) if text else []
    count, end = taken_back(tokenizer, ids, whole_characters=True)
    kept = text.encode()[: -len(end)].decode() if end else text
    return kept, end, count


def taken_back(tokenizer: Tokenizer, ids: Sequence[int], whole_characters: bool = False) -> tuple[int, bytes]:
    """How many of the last ids are taken back, and their bytes."""
    known = spelling(tokenizer)
    found, end = (0, b""), b""
    for count, token in enumerate(reversed(ids), 1):
        end = tokenizer.token_bytes(token) + end
        if token in tokenizer.control_token_ids or len(end) > known.longest:
            break
        inside = whole_characters and end[:1] and end[0] & 0xC0 == 0x80
        if not inside and known.spans(end):
            found = count, end
    return found
