"""What the routes share: the loaded model's tokenizer, the worker, admission, and running a request's sequences."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from pipelines.engine.plan import Plan
from pipelines.engine.sampling import SamplingParams
from pipelines.engine.sequence import SequenceRequest
from pipelines.prompts.gap import Gap, continued_prompt, gap_prompt
from pipelines.prompts.healing import healed
from pipelines.prompts.markers import spelled_gap
from pipelines.prompts.prompt import Prompt, encode_prompt
from pipelines.registry import ModelFiles
from pipelines.server.http.api_error import ApiError, sequence_failed, shutting_down, stalled, worker_failed
from pipelines.server.http.event_stream import beside
from pipelines.server.metrics import Metrics
from pipelines.server.model_info import model_facts
from pipelines.server.options import ServeOptions
from pipelines.server.process.messages import Step
from pipelines.server.process.worker_process import Generation, Worker
from pipelines.server.record import Log, Record
from pipelines.server.stall import Stall
from pipelines.server.starting import Waiting
from pipelines.text.chain import Delta, SequenceText, build_chain
from weights.errors import UserError
from weights.tokenizers.tokenizer import Tokenizer

# -1, and what llama.cpp writes for it.
DRAWN_SEEDS = (-1, 2**32 - 1)
# Names of ignored fields that the log tells: they come from strangers.
MOST_TOLD = 200


@dataclass
class RunningSequence:
    """A running sequence of a request: its generation, its text so far and its first step."""

    index: int
    generation: Generation
    plan: Plan
    tokenizer: Tokenizer
    first: Step | None = None
    last_token: float = 0.0
    first_token: float = 0.0
    drafted: int = 0  # guesses that were checked, and those that were right
    drafted_right: int = 0
    reads: bool = True  # whether it is the one that reads its prompt, of those that share it

    @cached_property
    def text(self) -> SequenceText:
        """Its text so far."""
        return build_chain(self.tokenizer, self.plan)


class Service:
    """The state of the HTTP process."""

    def __init__(
        self, options: ServeOptions, files: ModelFiles, worker: Worker, log: Log, waiting: Waiting | None = None
    ) -> None:
        self.options = options
        self.tokenizer = files.tokenizer
        self.config = files.config
        self.facts = model_facts(options, files)
        self.worker = worker
        self.log = log
        self.waiting = waiting or Waiting()
        self.stall = Stall(worker, options.stall_timeout)
        self.metrics = Metrics()
        self.started = int(time.time())
        self.draining = False
        self._counter = 0
        self._told: set[str] = set()
        self._warming: dict[str, Generation] = {}  # the newest warm-up of each client

    @property
    def max_length(self) -> int:
        """Longest sequence, prompt included."""
        return self.options.max_length

    def check_ready(self) -> None:
        """Raises ApiError (503) while the model is loading, while its worker is stalled and while the server ends."""
        if self.draining:
            raise shutting_down()
        if self.worker.ended.is_set():
            raise worker_failed()
        if self.worker.ready is None:
            raise self.waiting.error()
        if self.stall.is_stalled:
            raise stalled(self.stall.seconds)

    def check_model(self, name: str | None) -> None:
        """With --check-model, raises ApiError (404) for a model that is not the served one; an empty name is none."""
        if self.options.check_model and name:
            self.find_model(name)

    def find_model(self, name: str) -> None:
        """Raises ApiError (404) unless it is the served model.

        `:latest` after its name is Ollama's way of writing; of a path in an address single slashes are left.
        """
        if _bare(name) != _bare(self.options.name):
            raise ApiError(
                f"the model {name[:200]!r} does not exist here; expected {self.options.name!r}",
                status=404, param="model", code="model_not_found",
            )  # fmt: skip

    def prompt(self, prompt: str | list[int], param: str, *, heal: bool = False) -> Prompt:
        """A prompt, checked against the vocabulary; with `heal` the end of a text is spelled again."""
        if isinstance(prompt, str):
            self.check_size(len(prompt), param)
        try:
            found = encode_prompt(self.tokenizer, prompt)
        except UserError as error:
            raise ApiError(str(error), param=param) from None
        return healed(self.tokenizer, found) if heal and isinstance(prompt, str) else found

    def heals(self, stated: bool | None, *, editor: bool) -> bool:
        """Whether tokens are healed: as a request states it, else as the server was started, else where editors ask."""
        if stated is not None:
            return stated
        return {"on": True, "off": False}.get(self.options.token_healing, editor)

    def gap(
        self, gap: Gap, max_new_tokens: int | None, param: str, *, cut: bool = True, heal: bool | None = None
    ) -> Prompt:
        """The prompt of a gap in code; without `cut` the answer may repeat what stands after it.

        `heal` None is as the server was started. A model without fill-in-the-middle continues what stands before.
        Raises ApiError, with --strict-infill and 501 for such a model.
        """
        healing = self.heals(heal, editor=True)
        continued = self.tokenizer.fim is None and not self.options.strict_infill
        try:
            if continued:
                found = continued_prompt(self.tokenizer, gap, self.max_length, max_new_tokens, healing)
            else:
                found = gap_prompt(
                    self.tokenizer, gap, self.max_length, max_new_tokens, self.options.suffix_first, heal=healing
                )
        except UserError as error:
            status = 400 if self.tokenizer.fim or continued else 501  # llama.cpp's status for it
            raise ApiError(str(error), status=status, param=param) from None
        return found if cut else replace(found, after="")

    def marked_gap(self, text: str, wanted: bool) -> Gap | None:
        """The gap that a prompt's markers spell, if that is `wanted`.

        With --strict-infill a model without fill-in-the-middle reads them as they stand.
        """
        if not wanted or (self.tokenizer.fim is None and self.options.strict_infill):
            return None
        return spelled_gap(text)

    def check_size(self, characters: int, param: str) -> None:
        """Raises ApiError for a text that no sequence can hold, before it is encoded."""
        least = -(-characters // self.tokenizer.longest_token)
        if least > self.max_length:
            raise ApiError(
                f"the prompt has {characters} characters, at least {least} tokens; expected at most "
                f"{self.max_length - 1}: this server's sequences hold {self.max_length} tokens, prompt and completion "
                "together",
                param=param, code="context_length_exceeded", counts=self._counts(least),
            )  # fmt: skip

    def check_length(self, count: int, new_tokens: int | None, param: str) -> None:
        """Raises ApiError for a prompt that leaves no room for a token."""
        limit = self.max_length - (new_tokens != 0)
        if count > limit:
            raise ApiError(
                f"the prompt has {count} tokens; expected at most {limit}: this server's sequences "
                f"hold {self.max_length} tokens, prompt and completion together",
                param=param, code="context_length_exceeded", counts=self._counts(count),
            )  # fmt: skip

    def _counts(self, tokens: int) -> dict[str, int]:
        """What llama.cpp tells of a prompt that is too long."""
        return {"n_prompt_tokens": tokens, "n_ctx": self.max_length}

    def params(self, sampling: dict[str, Any], prompt_tokens: int) -> SamplingParams:
        """Sampling for a prompt of this length: at most what fits is generated."""
        room = self.max_length - prompt_tokens
        wanted = sampling["max_new_tokens"]
        count = room if wanted is None or wanted < 0 else min(wanted, room)
        return SamplingParams(**(sampling | {"max_new_tokens": count, "seed": None}))

    @staticmethod
    def seed(stated: int | None) -> int:
        """The request's seed, or one that is drawn. Negative ones are told apart from the others by their bits."""
        drawn = stated is None or stated in DRAWN_SEEDS
        return random.getrandbits(48) if drawn or stated is None else stated % 2**64

    def salt(self, record: Record, stated: str | None) -> str | None:
        """By which a request's prefixes are kept apart, None where they are not: a digest, which tells no key."""
        scope = self.options.prefix_cache_scope
        parts = (
            record.key if scope != "all" else "",
            (record.user or "") if scope == "user" else "",
            stated or "",
        )
        return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest() if any(parts) else None

    def tell_ignored(self, route: str, names: Iterable[str]) -> None:
        """Logs the fields that were ignored, each once, and not without end."""
        for name in names:
            if name not in self._told and len(self._told) < MOST_TOLD:
                self._told.add(name)
                self.log.event("field ignored", field=name, route=route)

    def start(self, plans: Sequence[Plan], record: Record) -> list[RunningSequence]:
        """Sends a request's sequences to the worker, all or none. Raises ApiError where there is no room."""
        self._admit(len(plans))
        started: list[RunningSequence] = []
        readers: dict[int, str] = {}  # the sequence that reads a prompt, by the prompt's identity
        for index, plan in enumerate(plans):
            self._counter += 1
            name = f"{record.id}-{self._counter}"
            after = readers.setdefault(id(plan.prompt), name)
            request = replace(plan.request(name, after if after != name else None), owner=record.owner)
            warms = request.warms and len(plans) == 1
            generation = self._warm(request, record.client) if warms else self.worker.submit(request)
            if after == name:
                record.prompt_tokens += plan.prompt.tokens
            started.append(RunningSequence(index, generation, plan, self.tokenizer, reads=after == name))
        return started

    def _warm(self, request: SequenceRequest, client: str) -> Generation:
        """A sequence that only fills the cache: it waits for all others, and goes on when its client has left.

        A client has one at most, the newest.
        """
        self._warming = {name: known for name, known in self._warming.items() if self.worker.runs(known.request.id)}
        if client in self._warming:
            self._warming.pop(client).cut_short()
        self._warming[client] = self.worker.submit(replace(request, background=True))
        return self._warming[client]

    def check_count(self, count: int) -> None:
        """Raises ApiError for more sequences at once than can ever wait, before their prompts are encoded."""
        most = self.options.max_batch_size + self.options.max_queue_size
        if count > most:
            raise ApiError(
                f"the request asks for {count} sequences; expected at most {most}: send fewer "
                "prompts or a smaller n at once"
            )

    def _admit(self, count: int) -> None:
        self.check_count(count)
        most = self.options.max_batch_size + self.options.max_queue_size
        if self.worker.in_flight + count > most:
            raise ApiError(
                f"the server is busy: {self.worker.in_flight} sequences run or wait, expected at "
                f"most {most} with yours; try again in a moment",
                status=429, code="queue_full", headers={"Retry-After": "1"},
            )  # fmt: skip

    async def run(
        self, sequences: Sequence[RunningSequence], record: Record
    ) -> AsyncGenerator[tuple[RunningSequence, Delta], None]:
        """All deltas of a request's sequences as they come. Leaving early cancels what still runs."""
        try:
            await find_blocks(sequence.plan for sequence in sequences)
            async with aclosing(self._merged(sequences)) as merged:
                async for sequence, step in merged:
                    yield sequence, self._take(sequence, step, record)
        finally:
            for sequence in sequences:
                if not sequence.generation.request.background:
                    sequence.generation.cancel()
                self._finish(sequence, record)

    async def _merged(self, sequences: Sequence[RunningSequence]) -> AsyncGenerator[tuple[RunningSequence, Step], None]:
        queue: asyncio.Queue[tuple[RunningSequence, Step]] = asyncio.Queue()
        for sequence in sequences:
            sequence.generation.listen(partial(_put, queue, sequence))
        running = len(sequences)
        while running:
            sequence, step = await queue.get()
            if sequence.generation.ended:
                continue  # steps of a pass that ran while it was cancelled
            yield sequence, step
            if step.end is not None or sequence.text.stopped:
                sequence.generation.finish(cancel=step.end is None)
                running -= 1

    def _take(self, sequence: RunningSequence, step: Step, record: Record) -> Delta:
        if step.end == "failed":
            if step.error is None and self.draining:  # the worker was ended with the server
                raise shutting_down()
            raise worker_failed() if step.error is None else sequence_failed(step.error)
        delta = sequence.text.push(step.tokens, step.end)
        if sequence.first is None:
            sequence.first = step
            if sequence.reads:
                record.cached_tokens += step.cached_tokens
        record.drafted += step.drafted - sequence.drafted
        record.drafted_right += step.drafted_right - sequence.drafted_right
        sequence.drafted, sequence.drafted_right = step.drafted, step.drafted_right
        if step.tokens:
            record.token(step.started)
            sequence.last_token = time.monotonic()
            sequence.first_token = sequence.first_token or sequence.last_token
        return delta

    def _finish(self, sequence: RunningSequence, record: Record) -> None:
        if sequence.first is None:
            return
        record.generated_tokens += sequence.text.tokens
        if sequence.text.tokens > 1:
            spent = sequence.last_token - sequence.first_token
            self.metrics.per_token.observe(spent / (sequence.text.tokens - 1))


def _bare(name: str) -> str:
    return "/".join(filter(None, name.removesuffix(":latest").split("/")))


def _put(queue: asyncio.Queue[tuple[RunningSequence, Step]], sequence: RunningSequence, step: Step) -> None:
    queue.put_nowait((sequence, step))


async def find_blocks(plans: Iterable[Plan]) -> None:
    """Finds the blocks that completions end with, while the model reads."""
    prompts = {id(plan.prompt): plan.prompt for plan in plans if plan.params.completion == "block"}.values()
    await beside(sum(len(prompt.before) for prompt in prompts), lambda: [prompt.block for prompt in prompts])
