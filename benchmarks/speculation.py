"""What guesses are worth: tokens a second and tokens a read, with and without, in turns on one machine.

    python -m benchmarks.speculation MODEL.gguf --texts FOLDER [--draft nano|ngram|PATH] [--rounds 3] [--llama]

MODEL is best one that writes code at a large model's price (benchmarks/widened_nano.py), made of another nano than the
one that guesses. FOLDER holds Python files that neither has seen. Four kinds of text:

- written: what people wrote there, replayed: the engine runs at its real cost, the token "drawn" is the text's.
- free: greedy continuations of beginnings of those files.
- edits: the file's own lines again after an instruction, with one line inserted and one name changed, replayed.
- random: random ids, replayed, where no guess is ever right.

Each runs without guesses and with, in turns; texts are compared. `--llama` adds llama.cpp's speed along the same
texts (llama-cpp-python): plain, with its lookup in the prompt, and with nano's greedy guesses. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.engine.loop import run
from pipelines.engine.sampling import SamplingParams
from pipelines.engine.sequence import Sequence, SequenceRequest, Token
from pipelines.engine.slots import common_length
from pipelines.pipeline import Pipeline, load
from replit.gpu.top_logits import TopLogits
from weights.embedded_models import EMBEDDED

NEW_TOKENS = 96
PROMPT_TOKENS = 400


@dataclass(frozen=True)
class Task:
    """A prompt, and the ids that are to follow, None where the model draws them."""

    kind: str
    prompt: list[int]
    text: list[int] | None


class Replayed(Sequence):
    """A sequence whose next tokens are given: logits are computed and sampled as ever, then the text's is taken."""

    def __init__(self, request: SequenceRequest, pipeline: Pipeline, text: list[int]) -> None:
        super().__init__(request, pipeline.tokenizer, pipeline.max_length)
        self._text = text

    def _next(self, logits: npt.NDArray[np.float32] | TopLogits) -> Token | None:
        super()._next(logits)
        if self.end == "stop":
            self.end = None
            self.ids.append(0)
        self.ids[-1] = self._text[len(self.ids) - 1]
        self.end = "length" if len(self.ids) >= self.budget else None
        return Token(self.ids[-1])


def tasks(pipeline: Pipeline, texts: Path, count: int) -> list[Task]:
    """Tasks of all kinds; the same for the same folder."""
    generator = random.Random(0)
    encode = pipeline.tokenizer.encode
    files = sorted(path for path in texts.rglob("*.py") if 4_000 < path.stat().st_size < 60_000)
    chosen = [path.read_text(encoding="utf-8") for path in generator.sample(files, min(count, len(files)))]
    found = []
    for source in chosen:
        ids = encode(source, parse_special=False)
        cut = generator.randrange(PROMPT_TOKENS // 2, max(len(ids) - NEW_TOKENS, PROMPT_TOKENS // 2 + 1))
        prompt = ids[max(0, cut - PROMPT_TOKENS) : cut]
        found.append(Task("written", prompt, ids[cut : cut + NEW_TOKENS]))
        found.append(Task("free", prompt, None))
        lines = source.splitlines(keepends=True)[20:44]
        edited = [*lines[:4], "    # checked\n", *(line.replace("self", "this") for line in lines[4:8]), *lines[8:]]
        old, new = encode("".join(lines), parse_special=False), encode("".join(edited), parse_special=False)
        found.append(Task("edits", [*old, *encode("\n# the same, edited:\n")], new[:NEW_TOKENS]))
        usable = range(8, min(pipeline.tokenizer.vocab_size, 8000))
        noise = [generator.choice(usable) for _ in range(200 + NEW_TOKENS)]
        found.append(Task("random", noise[:200], noise[200:]))
    return found


def generate(pipeline: Pipeline, task: Task, name: str, guesses: bool) -> tuple[list[int], float, int]:
    """Ids, seconds after the first token, and passes after it."""
    count = NEW_TOKENS if task.text is None else len(task.text)
    params = SamplingParams(max_new_tokens=count, ignore_eos=True)
    request = SequenceRequest(name, task.prompt, params, (0,))
    if task.text is None:
        sequence = Sequence(request, pipeline.tokenizer, pipeline.max_length)
    else:
        sequence = Replayed(request, pipeline, task.text)
    passes, begun = -1, 0.0
    for _ in run(pipeline.slots, [sequence], pipeline.drafter if guesses else None):
        passes += 1
        begun = begun or time.perf_counter()
    return sequence.ids, time.perf_counter() - begun, passes


def measure(
    pipeline: Pipeline, wanted: Several[Task], rounds: int
) -> tuple[list[dict[str, Any]], dict[int, list[int]]]:
    """A row for each kind: tokens a second without and with, their ratio, and tokens a read; and the free texts."""
    rates: dict[tuple[str, bool], list[float]] = {}
    reads: dict[str, list[float]] = {}
    number = 0
    same = True
    free: dict[int, list[int]] = {}
    for _ in range(rounds):
        for index, task in enumerate(wanted):
            texts = []
            for guesses in (False, True):
                number += 1
                if pipeline.drafter is not None:
                    pipeline.drafter.history.clear()  # it would know the text from the round before
                ids, seconds, passes = generate(pipeline, task, f"speculation-{number}", guesses)
                texts.append(ids)
                rates.setdefault((task.kind, guesses), []).append((len(ids) - 1) / seconds)
                if guesses:
                    reads.setdefault(task.kind, []).append((len(ids) - 1) / passes)
            same = same and texts[0] == texts[1]
            if task.text is None:
                free[index] = texts[0]
    rows = []
    for kind in dict.fromkeys(task.kind for task in wanted):
        without, speculated = median(rates[kind, False]), median(rates[kind, True])
        pairs = zip(rates[kind, False], rates[kind, True], strict=True)
        rows.append(
            {
                "text": kind,
                "without": round(without, 2),
                "with": round(speculated, 2),
                "ratio": round(median(b / a for a, b in pairs), 2),
                "tokens_a_read": round(sum(reads[kind]) / len(reads[kind]), 2),
            }
        )
    rows.append({"texts_equal": same})
    return rows, free


def replay(engine: Any, task: Task, text: list[int], guess: Callable[[list[int]], list[int]]) -> float:
    """Tokens a second, after the first, of llama.cpp along `text`: passes over the newest token and guesses."""
    engine.reset()
    engine.eval(task.prompt)
    done = 1
    begun = time.perf_counter()
    while done < len(text):
        known = [*task.prompt, *text[:done]]
        guesses = guess(known)[: len(text) - done - 1]
        engine.n_tokens = len(known) - 1
        engine.eval([known[-1], *guesses])
        for row in engine.scores[len(known) - 1 : len(known) + len(guesses)]:
            row.argmax()  # as it samples
        done += 1 + common_length(guesses, text[done:])
    return (len(text) - 1) / (time.perf_counter() - begun)


def llama(model: Path, draft: Path, wanted: Several[Task], free: dict[int, list[int]]) -> list[dict[str, Any]]:
    """llama.cpp's tokens a second on the same texts: plain, with its lookup in the prompt, with nano's greedy guesses.

    `free` has our ids of the texts that nobody gave, by the task's number.
    """
    from llama_cpp import Llama
    from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

    lookup = LlamaPromptLookupDecoding(num_pred_tokens=7)
    small = Llama(str(draft), n_ctx=1024, n_threads=2, verbose=False, logits_all=True)

    def guess(known: list[int]) -> list[int]:
        common = common_length(small.input_ids[: small.n_tokens].tolist(), known[:-1])
        small.n_tokens = common
        small.eval(known[common:])
        found: list[int] = []
        while True:
            row = small.scores[small.n_tokens - 1]
            best = int(row.argmax())
            if len(found) == 7 or 1 / np.exp(row - row[best]).sum() < 0.5:
                return found
            found.append(best)
            small.eval([best])

    ways: dict[str, Callable[[list[int]], list[int]]] = {
        "plain": lambda known: [],
        "prompt lookup": lambda known: [int(i) for i in lookup(np.array(known))],
        "nano": guess,
    }
    engine = Llama(str(model), n_ctx=1024, n_threads=2, verbose=False, logits_all=True)
    rows = []
    for name, way in ways.items():
        rates: dict[str, list[float]] = {}
        for number, task in enumerate(wanted):
            rates.setdefault(task.kind, []).append(replay(engine, task, task.text or free[number], way))
        rows.append({"llama.cpp": name, **{kind: round(median(found), 2) for kind, found in rates.items()}})
    return rows


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--draft", default="auto")
    parser.add_argument("--count", type=int, default=4, help="files")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--llama", action="store_true")
    options = parser.parse_args()
    pipeline = load(str(options.model), max_length=1024, draft=options.draft, threads=options.threads)
    wanted = tasks(pipeline, options.texts, options.count)
    rows, free = measure(pipeline, wanted, options.rounds)
    if options.llama:
        rows += llama(options.model, EMBEDDED["nano"], wanted, free)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    print(json.dumps({"model": options.model.name, "draft": options.draft, "rows": rows}))


if __name__ == "__main__":
    main()
