"""Prompts that spell a whole gap with a model's markers, as editors' templates do.

Continue, Tabby, Twinny, Zed, llm.nvim, cmp-ai and others write the markers into the prompt themselves, of the family
that they take the model's name for, in the order of that family. Read as they stand they are text, or tokens in an
order in which the model was not trained. So such a prompt is taken for what it means: text before and after a gap.
"""

from __future__ import annotations

from typing import NamedTuple

from pipelines.prompts.gap import Gap


class _Markers(NamedTuple):
    """Before what stands before the gap, before what stands after it, and at the end."""

    prefix: str
    suffix: str
    middle: str


_FAMILIES = (
    _Markers("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Refact, StableCode, and unknown models
    _Markers("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen, CodeGemma, Granite
    _Markers("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    _Markers("<PRE>", "<SUF>", "<MID>"),  # Code Llama
    _Markers("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),  # DeepSeek
    _Markers("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM
    _Markers("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"),  # Seed-Coder
)
_CODE_LLAMA = _FAMILIES[3]
# Codestral's has no marker at its end: what stands before the gap is the end.
_SUFFIX, _PREFIX = "[SUFFIX]", "[PREFIX]"
# What some templates write before everything.
_STARTS = ("<|endoftext|>", "<s>", "<bos>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>")


def spelled_gap(text: str) -> Gap | None:
    """The gap that a prompt spells: it has each marker of a family once, the middle's last.

    The first one is at the beginning, or the last one at the end: then text of other files may stand before. What
    stands behind the middle's is the beginning of the text in the gap. None for any other prompt.
    """
    for start in _STARTS:
        text = text.removeprefix(start)
    if text.startswith(_SUFFIX):
        suffix, found, prefix = text[len(_SUFFIX) :].partition(_PREFIX)
        return Gap(prefix, suffix) if found and _SUFFIX not in suffix + prefix and _PREFIX not in prefix else None
    for family in _FAMILIES:
        if all(text.count(marker) == 1 for marker in family):
            return _parts(text, family)
    return None


def _parts(text: str, family: _Markers) -> Gap | None:
    code, _, middle = text.partition(family.middle)
    first, second = sorted((family.prefix, family.suffix), key=text.index)
    context, _, code = code.partition(first)
    before, found, after = code.partition(second)
    if not found or (context and middle):
        return None
    prefix, suffix = (before, after) if first == family.prefix else (after, before)
    if family is _CODE_LLAMA:
        prefix, suffix, middle = _code_llama(prefix, suffix, middle)
    return Gap(prefix, suffix, middle=middle, context=context)


def _code_llama(prefix: str, suffix: str, middle: str) -> tuple[str, str, str]:
    """Its template has a space on the inner side of the markers, `<PRE> before <SUF>after <MID>`,
    and in some editors one more.
    """
    suffix = suffix[1:] if suffix.startswith(" \n") else suffix
    return prefix.removeprefix(" ").removesuffix(" "), suffix.removesuffix(" "), middle.removeprefix(" ")
