"""Texts with guesses are those without: ids and log-probabilities, greedy and seeded, alone, among others, served.

    python -m benchmarks.same_texts MODEL --texts FOLDER --draft nano --prompts 500

MODEL is nano or a GGUF file, which is converted to each encoding as it is loaded; `--encodings file` takes it as it is.
Prompts are pieces of 20 to 400 tokens of the Python files in FOLDER, each completed greedily and with a seed. What a
model says alone and without guesses is compared with what it says with guesses, among seven others with and without,
and with what its server says to eight clients at once. Prints a line of JSON for each encoding; exits with 1 if any
differs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.same_bits import ENCODINGS
from benchmarks.typing import PORT, Server
from pipelines.engine.plan import Plan
from pipelines.engine.sampling import SamplingParams
from pipelines.pipeline import Pipeline, load

AT_ONCE = 8
MAX_LENGTH = 512
LONGEST = 400


@dataclass(frozen=True)
class Task:
    """Ids of a prompt and how to sample after it; a seed is used where the temperature is not 0."""

    ids: list[int]
    temperature: float
    seed: int
    count: int

    def plan(self, pipeline: Pipeline) -> Plan:
        """For our own loop."""
        params = SamplingParams(
            temperature=self.temperature, seed=self.seed, top_k=0, max_new_tokens=self.count, ignore_eos=True
        )
        return Plan(pipeline.prompt(self.ids), params, (self.seed, 0), 0)

    def body(self) -> dict[str, Any]:
        """For the server."""
        return {
            "prompt": self.ids, "temperature": self.temperature, "seed": self.seed, "top_k": 0, "logprobs": 0,
            "max_tokens": self.count, "ignore_eos": True, "return_tokens_as_token_ids": True,
        }  # fmt: skip


Said = list[tuple[int, float]]  # each token and its log-probability


def tasks(pipeline: Pipeline, folder: Path, prompts: int, count: int) -> list[Task]:
    """Two for each prompt; the same for the same folder."""
    chosen = random.Random(19)
    texts = [path.read_text("utf-8", "ignore") for path in sorted(folder.rglob("*.py"))]
    found = []
    for number in range(prompts):
        ids = pipeline.tokenizer.encode(chosen.choice(texts), parse_special=False)
        start = chosen.randrange(max(len(ids) - 20, 1))
        piece = ids[start : start + chosen.randint(20, LONGEST)]
        found += [Task(piece, 0, number, count), Task(piece, 0.8, number, count)]
    return found


def groups(some: list[Task]) -> Iterator[list[Task]]:
    """As many as run together, after one another."""
    for first in range(0, len(some), AT_ONCE):
        yield some[first : first + AT_ONCE]


def said(pipeline: Pipeline, some: list[Task]) -> list[Said]:
    """What comes of tasks that run together."""
    found: list[Said] = [[] for _ in some]
    for piece in pipeline.stream_plans([task.plan(pipeline) for task in some]):
        assert piece.error is None, piece.error
        found[piece.index] += [(token.token, token.logprob) for token in piece.logprobs]
    return found


def served(server: Server, some: list[Task]) -> list[Said]:
    """The same of the server, each task from a client of its own."""

    def ask(task: Task) -> Said:
        answer = server.client.post("/v1/completions", json=task.body())
        assert answer.status_code == 200, answer.text
        scores = answer.json()["choices"][0]["logprobs"]
        ids = (int(token.removeprefix("token_id:")) for token in scores["tokens"])
        return list(zip(ids, scores["token_logprobs"], strict=True))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(ask, some))


def differences(expected: list[Said], found: Iterator[Said]) -> int:
    """How many are not the same, in any token or any bit of a log-probability."""
    return sum(a != b for a, b in zip(expected, found, strict=True))


def compare(arguments: argparse.Namespace, encoding: str | None) -> dict[str, Any]:
    """Counts of what was compared and what differs."""
    options: dict[str, Any] = {"quantization_encoding": encoding, "max_length": MAX_LENGTH, "max_batch_size": AT_ONCE}
    plain = load(arguments.model, draft="none", **options)
    some = tasks(plain, arguments.texts, arguments.prompts, arguments.tokens)
    expected = [answer for task in some for answer in said(plain, [task])]
    together = (answer for group in groups(some) for answer in said(plain, group))
    found: dict[str, Any] = {"encoding": encoding or "file", "texts": len(some)}
    found["among_others"] = differences(expected, together)
    guessing = load(arguments.model, draft=arguments.draft, **options)
    assert guessing.drafter is not None
    found["guesses_alone"] = differences(expected, (said(guessing, [task])[0] for task in some))
    together = (answer for group in groups(some) for answer in said(guessing, group))
    found["guesses_among_others"] = differences(expected, together)
    found |= {"guessed": guessing.drafter.guessed, "accepted": guessing.drafter.right}
    command = [
        sys.executable, "-m", "pipelines", "--serve", "--model", arguments.model, "--port", PORT, "--max-length",
        str(MAX_LENGTH), "--max-cache-batch-size", str(AT_ONCE), "--draft", arguments.draft,
        *(["--quantization-encoding", encoding] if encoding else []),
    ]  # fmt: skip
    server = Server("replit", command)
    try:
        found["served"] = differences(expected, iter(served(server, some)))
    finally:
        server.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--draft", default="nano")
    parser.add_argument("--encodings", nargs="+", default=list(ENCODINGS), choices=[*ENCODINGS, "file"])
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=24, help="of an answer")
    arguments = parser.parse_args()
    failed = 0
    for encoding in arguments.encodings:
        found = compare(arguments, None if encoding == "file" else encoding)
        print(json.dumps(found), flush=True)
        failed += sum(found[name] for name in ("among_others", "guesses_alone", "guesses_among_others", "served"))
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
