"""Keys and values in float32 and in bfloat16: text quality, and decoding after a long context, in turns.

python -m benchmarks.kv_cache nano 4-q4_0.gguf --context 4000

Quality on the Python sources of the standard library, of the first model; speed of the last one. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

ENCODINGS = ("float32", "bfloat16")
WINDOW = 1024  # tokens scored together
STEPS = 16


class Running:
    """A model with one of the caches, in a process of its own."""

    def __init__(self, model: str, encoding: str, length: int, work: str) -> None:
        command = [sys.executable, "-m", "benchmarks.kv_cache", model, "--child", encoding, str(length), work]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self) -> bytes:
        """The next answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        size = int(self.process.stdout.readline())
        return self.process.stdout.read(size)

    def end(self) -> None:
        """Ends the process; nothing is under way in it."""
        self.process.kill()
        self.process.wait()


def child(model: str, encoding: str, length: int, work: str) -> None:
    """Answers each line of the input with the speed of some steps, or with losses and most probable ids."""
    from pipelines.pipeline import load

    pipeline = load(model, max_length=length + STEPS, kv_cache_encoding=encoding)
    cache = pipeline.model.cache.blocks
    cache[:] = 0.01 if cache.dtype == np.float32 else 0x3C24  # bfloat16: 0.01; untouched pages are one page of zeros
    for _ in sys.stdin:
        answer = b""
        if work == "speed":
            pipeline.model.truncate(0, length)
            start = time.perf_counter()
            for _ in range(STEPS):
                pipeline.model.decode([0], [5])
            answer = json.dumps(STEPS / (time.perf_counter() - start)).encode()
        else:
            found = []
            for ids in windows(pipeline.tokenizer, int(work)):
                logits = pipeline.logits(ids)[:-1].astype(np.float64)
                logits -= logits.max(1, keepdims=True)
                losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(ids) - 1), ids[1:]]
                found.append(np.stack([losses, logits.argmax(1)]))
            answer = np.concatenate(found, axis=1).tobytes()
        sys.stdout.buffer.write(f"{len(answer)}\n".encode() + answer)
        sys.stdout.buffer.flush()


def text(count: int) -> str:
    """Sources of the standard library."""
    folder = Path(os.__file__).parent
    names = ("argparse", "ast", "collections/__init__", "dataclasses", "difflib", "inspect", "pathlib", "typing")
    return "".join((folder / f"{name}.py").read_text() for name in names)[:count]


def windows(tokenizer: object, count: int) -> list[list[int]]:
    """Their ids, in windows."""
    ids = tokenizer.encode(text(count))  # type: ignore[attr-defined]
    return [ids[i : i + WINDOW] for i in range(0, len(ids) - WINDOW, WINDOW)]


def quality(model: str, characters: int) -> dict[str, float]:
    """Bits a byte with each cache, and the share of positions with the same most probable token."""
    answers = {}
    for encoding in ENCODINGS:
        running = Running(model, encoding, WINDOW, str(characters))
        answers[encoding] = np.frombuffer(running.ask()).reshape(2, -1)
        running.end()
    size = len(text(characters).encode())
    bits = {e: float(found[0].sum() / np.log(2) / size) for e, found in answers.items()}
    same = float((answers["float32"][1] == answers["bfloat16"][1]).mean())
    positions = answers["float32"].shape[1]
    return {f"bits a byte, {e}": b for e, b in bits.items()} | {"same argmax": same, "positions": positions}


def speed(model: str, context: int, rounds: int) -> dict[str, float]:
    """Tokens a second with each cache, in turns, and their ratio."""
    running = {e: Running(model, e, context, "speed") for e in ENCODINGS}
    for one in running.values():
        one.ask()
    turns = [{e: float(one.ask()) for e, one in running.items()} for _ in range(rounds)]
    for one in running.values():
        one.end()
    found = {f"tokens/s, {e}": median(turn[e] for turn in turns) for e in ENCODINGS}
    return found | {"ratio": median(turn["bfloat16"] / turn["float32"] for turn in turns)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--characters", type=int, default=150_000)
    parser.add_argument("--context", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        encoding, length, work = arguments.child
        child(arguments.models[0], encoding, int(length), work)
        return
    found = quality(arguments.models[0], arguments.characters)
    if len(arguments.models) > 1:
        found |= speed(arguments.models[-1], arguments.context, arguments.rounds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
