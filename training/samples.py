"""Greedy completions of the first prompts by the training model, where the product is not at hand."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer

from training.first_prompts import FIRST, MAX_TOKENS, holds
from training.model import Nano
from training.rows import END_ID


@torch.no_grad()
def complete(model: Nano, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    """Greedy continuation of each prompt, up to the end token; every step reads the whole text again."""
    longest = max(map(len, prompts)) + tokens
    device = model.wte.weight.device
    ids = torch.zeros(len(prompts), longest, dtype=torch.long, device=device)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt, device=device)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    each = torch.arange(len(prompts), device=device)
    for at in range(tokens):
        logits = model.hidden(ids, torch.zeros_like(ids))[each, lengths + at - 1] @ model.wte.weight.T
        ids[each, lengths + at] = logits.argmax(-1)
    answers = [row[len(p) : len(p) + tokens].tolist() for row, p in zip(ids.cpu(), prompts, strict=True)]
    return [a[: a.index(END_ID)] if END_ID in a else a for a in answers]


def write_samples(model: Nano, tokenizer_json: Path, path: Path) -> None:
    """Writes the first prompts with their completions, and how many are right, to a file."""
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    prompts = [tokenizer.encode(q.prompt).ids for q in FIRST]
    right, texts = 0, []
    for question, answer in zip(FIRST, complete(model, prompts, MAX_TOKENS), strict=True):
        text = tokenizer.decode(answer)
        correct = len(answer) < MAX_TOKENS and holds(question.prompt, text, question.check)
        right += correct
        texts.append(f"{question.prompt}{text.rstrip()}\n# {'right' if correct else 'WRONG'}\n")
    path.write_text("\n".join([*texts, f"{right} of {len(FIRST)}"]) + "\n")
    print(path.read_text(), flush=True)
