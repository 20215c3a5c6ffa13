"""How byte-level BPE cuts text into words before it merges: llama.cpp's names for the patterns, and the patterns.

A name says which model a converter recognized, so files of this family carry those of models that split alike. Names of
patterns that need more than a pattern (a token at the start, merges that are left out) are not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import pre_tokenizers

GPT2, DIGITS, ONE_DIGIT, THREE_DIGITS = "gpt2", "digits", "one digit", "three digits"

#: `tokenizer.ggml.pre` to the kind of splitting.
NAMES: dict[str, str] = {
    name: kind
    for kind, names in {
        GPT2: "gpt-2 default mpt replit olmo phi-2 jais trillion granite-docling exaone4 modern-bert mellum gigachat "
        "a.x-4.0 jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe",
        # Every digit by itself, then GPT-2's pattern.
        DIGITS: "refact starcoder command-r smollm codeshell exaone minerva-7b mellum2",
        ONE_DIGIT: "stablelm2 qwen2 deepseek-r1-qwen kormo f2llmv2 megrez hunyuan solar-open",
        THREE_DIGITS: "dbrx smaug-bpe chatglm-bpe",
    }.items()
    for name in names.split()
}

# GPT-4's pattern and its descendants: runs of letters with one sign before them, line breaks apart.
_LATER = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {ONE_DIGIT: _LATER.format(digits=""), THREE_DIGITS: _LATER.format(digits="{1,3}")}


def pre_tokenizer(kind: str) -> pre_tokenizers.PreTokenizer:
    """The `tokenizers` library's steps for a kind of splitting; the last one spells bytes."""
    from tokenizers import Regex, pre_tokenizers

    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if kind == GPT2:
        return gpt2
    if kind == DIGITS:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    split = pre_tokenizers.Split(Regex(_PATTERNS[kind]), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
