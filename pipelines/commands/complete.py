"""`replit --prompt`: text to standard output as it is produced, everything else to standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pipelines.engine.drafter import Drafter
from pipelines.engine.sampling import SamplingParams
from pipelines.pipeline import TextPiece
from pipelines.prompts.gap import Gap
from pipelines.terminal.options import SAMPLING, chosen, load_model
from pipelines.terminal.read_text import read_stdin, read_text
from pipelines.terminal.report import say
from weights.errors import UserError


def complete(ctx: click.Context, options: dict[str, Any]) -> None:
    """Runs the model on the prompts that the options or standard input give."""
    sampling = chosen(options, (*SAMPLING, "ignore_eos", "completion"))
    SamplingParams(**sampling)  # before anything is loaded
    if options["num_return_sequences"] < 1:
        raise UserError(
            f"--num-return-sequences is {options['num_return_sequences']}; expected a whole number from 1 up"
        )
    prompts, suffix = read_prompts(ctx, options), read_suffix(options)
    pipeline = load_model(
        options,
        max_batch_size=options["max_cache_batch_size"],
        save_to_serialized_model_path=options["save_to_serialized_model_path"],
    )
    if not prompts:
        return  # only --save-to-serialized-model-path
    new, first = options["max_new_tokens"], options["suffix_first"]
    healing = options["token_healing"] == "on" or (options["token_healing"] == "auto" and suffix is not None)
    read = [
        pipeline.prompt(prompt, token_healing=healing)
        if suffix is None
        else pipeline.gap(Gap(prompt, suffix, whole=True), new, suffix_first=first, token_healing=healing)
        for prompt in prompts
    ]
    count = options["num_return_sequences"]
    output = CompletionWriter([prompt for prompt in prompts for _ in range(count)], suffix or "", options)
    output.write(pipeline.stream_prompts([prompt for prompt in read for _ in range(count)], **sampling))
    if not options["quiet"]:
        output.print_timings(sum(prompt.tokens for prompt in read), pipeline.drafter)
    output.check()


def read_prompts(ctx: click.Context, options: dict[str, Any]) -> list[str]:
    """The prompts; none if only the compiled model is asked for."""
    prompts = list(options["prompt"])
    if not prompts and options["save_to_serialized_model_path"]:
        return []
    if not prompts and sys.stdin.isatty():
        raise click.UsageError("there is no prompt; expected --prompt TEXT or text on standard input", ctx)
    prompts = prompts or ["-"]
    if prompts.count("-") > 1:
        raise click.UsageError(
            "--prompt - is given several times; expected one, since standard input is read once", ctx
        )
    prompts = [read_stdin(options["quiet"]) if prompt == "-" else prompt for prompt in prompts]
    if "" in prompts and options["suffix"] is None and options["suffix_file"] is None:
        raise UserError("the prompt is empty; expected text to complete: give --prompt TEXT")
    return prompts


def read_suffix(options: dict[str, Any]) -> str | None:
    """The text after the gap, None if there is no gap."""
    if options["suffix"] is not None and options["suffix_file"] is not None:
        raise click.UsageError("--suffix and --suffix-file are both given; expected one of them")
    if options["suffix_file"] is not None:
        return read_text(Path(options["suffix_file"]), options["quiet"])
    suffix: str | None = options["suffix"]
    if suffix is None and options["suffix_first"] is not None:
        given = "--suffix-first" if options["suffix_first"] else "--prefix-first"
        raise click.UsageError(f"{given} is given without a suffix; expected --suffix TEXT as well")
    return suffix


class CompletionWriter:
    """Writes pieces as they come; several completions one after the other, under a heading each."""

    def __init__(self, prompts: list[str], suffix: str, options: dict[str, Any]) -> None:
        self._prompts = prompts
        self._suffix = suffix
        self._echo = options["echo_prompt"]
        self._buffers = [""] * len(prompts)  # text of completions whose turn has not come
        self._done = [False] * len(prompts)
        self._current = 0
        self._start = time.perf_counter()
        self._first: float | None = None
        self._tokens = 0
        self._errors: list[str] = []
        self._stream = sys.stdout.buffer

    def write(self, pieces: Iterator[TextPiece]) -> None:
        """Writes all pieces; Ctrl-C ends the text where it is."""
        self._open()
        try:
            for piece in pieces:
                self._first = self._first or time.perf_counter()
                self._tokens += len(piece.token_ids)
                self._buffers[piece.index] += piece.text
                self._done[piece.index] |= piece.finish_reason is not None
                if piece.error is not None:
                    self._errors.append(piece.error)
                self._drain()
        except KeyboardInterrupt:
            self._drain()
            self._emit("\n")
            raise

    def _open(self) -> None:
        if len(self._prompts) > 1:
            self._emit(f"--- {self._current + 1} of {len(self._prompts)} ---\n")
        if self._echo:
            self._emit(self._prompts[self._current])

    def _drain(self) -> None:
        while self._current < len(self._prompts):
            text, self._buffers[self._current] = self._buffers[self._current], ""
            self._emit(text)
            if not self._done[self._current]:
                return
            self._emit(f"{self._suffix if self._echo else ''}\n")
            self._current += 1
            if self._current < len(self._prompts):
                self._open()

    def _emit(self, text: str) -> None:
        self._stream.write(text.encode("utf-8", errors="replace"))
        self._stream.flush()

    def check(self) -> None:
        """Raises UserError with the first completion that failed."""
        if self._errors:
            raise UserError(self._errors[0])

    def print_timings(self, prompt_tokens: int, drafter: Drafter | None) -> None:
        """One line on standard error: how many tokens, how fast, and how many of the guesses were right."""
        if self._first is None:
            return
        now = time.perf_counter()
        first, rest = self._first - self._start, now - self._first
        rate = f", {(self._tokens - 1) / rest:.1f} tokens/s" if self._tokens > 1 and rest else ""
        guessed = f", {drafter.right} of {drafter.guessed} guesses right" if drafter and drafter.guessed else ""
        say(f"{prompt_tokens} prompt tokens, first token after {first:.2f} s; {self._tokens} generated{rate}{guessed}")
