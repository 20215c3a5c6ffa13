"""The Python interface: a loaded model that completes text.

Tokens come from engine/loop.py, text from text/chain.py above it; the command line and the benchmarks use only this.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import reprlib
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipelines.drafting import open_drafter
from pipelines.engine.drafter import Drafter
from pipelines.engine.loop import run
from pipelines.engine.plan import Plan
from pipelines.engine.sampling import SamplingParams, check_integer
from pipelines.engine.sequence import Sequence as RunningSequence
from pipelines.engine.sequence import TokenLogprob
from pipelines.engine.slots import Slots
from pipelines.prompts.gap import Gap, gap_prompt
from pipelines.prompts.healing import healed
from pipelines.prompts.prompt import Prompt, check_ids, encode_prompt
from pipelines.registry import ModelFiles, check_length, open_model, parse_encoding
from pipelines.terminal.progress import Quiet
from pipelines.text.chain import build_chain
from pipelines.text.lexer import language_of
from replit.cpu.model import CpuModel
from replit.decoder.config import DecoderConfig
from replit.decoder.encodings import substitutions
from replit.gpu.device import free_bytes, open_device, plan_memory
from replit.gpu.model import GpuModel
from replit.runtime.bind import bind_weights
from replit.runtime.compile import CompileOptions, Reporter, compile_model
from replit.runtime.compile_key import CompileKey
from replit.runtime.engine import Engine
from replit.runtime.free_memory import check_cache_fits, fits_in_memory
from replit.runtime.slot_model import SlotModel
from replit.runtime.target import CPU_CACHES, Target
from replit.runtime.weight_memory import total_bytes, weight_types
from weights.errors import UserError
from weights.tensor import Encoding
from weights.tokenizers.tokenizer import Tokenizer

PromptLike = str | Sequence[int]
Place = str | os.PathLike[str]
FinishReason = Literal["stop", "length", "failed"]


@dataclass(frozen=True)
class TextPiece:
    """Text that became certain, and the ids since the last piece. `index` counts prompts and samples.

    `logprobs` belong to the text shown, where they were asked for. The last piece has a `finish_reason`; "failed" comes
    with an `error`.
    """

    text: str
    token_ids: tuple[int, ...]
    index: int = 0
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Completion:
    """A finished completion. `token_ids` holds what was generated, without the end-of-text token."""

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    prompt_tokens: int
    index: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    error: str | None = None


class Pipeline:
    """A model in memory. Streams and threads may share it while it has a sequence free for each (`max_batch_size`)."""

    def __init__(self, files: ModelFiles, model: SlotModel, weight_bytes: int, drafter: Drafter | None = None) -> None:
        """`drafter` guesses what is checked, None for nothing."""
        self.name = files.name
        self.files = files
        self.digest = ""  # of everything that computes
        self.tokenizer: Tokenizer = files.tokenizer
        self.config: DecoderConfig = files.config
        self.model = model
        self.weight_bytes = weight_bytes
        self.slots = Slots(model)
        self.drafter = drafter
        self._numbers = itertools.count()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is held that the end of the object does not free."""

    @property
    def max_length(self) -> int:
        """Longest sequence, prompt included."""
        return self.model.max_length

    def prompt(self, prompt: PromptLike, *, token_healing: bool = False) -> Prompt:
        """A prompt, checked: UserError if there are no token ids, too many or unknown ones.

        With `token_healing` the end of a text is spelled again by the completion, so that it may end inside a token.
        """
        found = encode_prompt(self.tokenizer, prompt)
        if len(found.ids) >= self.max_length:
            raise UserError(
                f"the prompt has {len(found.ids)} tokens; expected fewer than {self.max_length}: shorten "
                f"it, or raise --max-length (this model's limit is {self.config.max_seq_len})"
            )
        return healed(self.tokenizer, found) if token_healing and isinstance(prompt, str) else found

    def encode(self, prompt: PromptLike) -> list[int]:
        """The prompt's token ids, checked like `prompt`."""
        return self.prompt(prompt).ids

    def gap(
        self, gap: Gap, max_new_tokens: int = -1, *, suffix_first: bool | None = None, token_healing: bool = True
    ) -> Prompt:
        """The prompt of a gap in code. Raises UserError for a model without fill-in-the-middle."""
        return gap_prompt(self.tokenizer, gap, self.max_length, max_new_tokens, suffix_first, token_healing)

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits after every id, float32 `[len(ids), vocab]`; at most `max_length` ids."""
        checked = check_ids(self.tokenizer, ids)
        if len(checked) > self.max_length:
            raise UserError(f"there are {len(checked)} ids; expected at most {self.max_length}: raise --max-length")
        return self.slots.logits(checked)

    def stream(self, prompt: PromptLike, **sampling: Any) -> Iterator[TextPiece]:
        """Completes one prompt, piece by piece; the last piece carries the finish reason.

        Keywords: see `SamplingParams`, and `logprobs`, the number of alternatives beside each token. Raises UserError
        for an unusable prompt or keyword. Closing the iterator ends the completion and frees its place.
        """
        return self.stream_prompts([self.prompt(_one(prompt))], **sampling)

    def generate(self, prompt: PromptLike, **sampling: Any) -> Completion:
        """Completes one prompt. See `stream`. Raises UserError where the completion fails."""
        return self._complete(self.prompt(_one(prompt)), sampling)

    def fill(self, prefix: str, suffix: str, *, language: str | None = None, **sampling: Any) -> Completion:
        """Completes the gap between two texts, for models with fill-in-the-middle.

        `language` is a file's name or ending such as "x.py", which tells `completion="block"` where a block ends.
        """
        for text in (prefix, suffix):
            if not isinstance(text, str):
                raise UserError(f"the code around the gap is of the type {type(text).__name__}; expected two texts")
        if language is not None and not isinstance(language, str):
            raise UserError(f"the language is {reprlib.repr(language)}; expected a file's name or ending such as x.py")
        SamplingParams(**_checked({name: value for name, value in sampling.items() if name != "logprobs"}))
        gap = Gap(prefix, suffix, language_of(language) if language else None, whole=True)
        return self._complete(self.gap(gap, sampling.get("max_new_tokens", -1)), sampling)

    def _complete(self, prompt: Prompt, sampling: dict[str, Any]) -> Completion:
        (completion,) = self._completions(self._plans([prompt], **sampling))
        if completion.error is not None:
            raise UserError(completion.error)
        return completion

    def generate_batch(self, prompts: Sequence[PromptLike], **sampling: Any) -> list[Completion]:
        """Completes several prompts, as many at once as `max_batch_size` allows; in order.

        All prompts are checked first. One that fails later has an `error` in its completion, and the others go on.
        """
        return self._completions(self._plans([self.prompt(prompt) for prompt in _several(prompts)], **sampling))

    def stream_batch(self, prompts: Sequence[PromptLike], **sampling: Any) -> Iterator[TextPiece]:
        """Completes several prompts; pieces of different prompts interleave, told apart by `index`."""
        return self.stream_prompts([self.prompt(prompt) for prompt in _several(prompts)], **sampling)

    def stream_prompts(self, prompts: Sequence[Prompt], **sampling: Any) -> Iterator[TextPiece]:
        """`stream_batch` for prompts that `prompt` or `gap` made; the same one several times is read once."""
        return self.stream_plans(self._plans(prompts, **sampling))

    async def astream(self, prompt: PromptLike, **sampling: Any) -> AsyncIterator[TextPiece]:
        """`stream` for an event loop, which goes on while the model computes in a thread."""
        pieces = self.stream(prompt, **sampling)
        running: asyncio.Future[TextPiece | None] | None = None
        try:
            while True:
                running = asyncio.get_running_loop().run_in_executor(None, next, pieces, None)
                piece = await asyncio.shield(running)
                if piece is None:
                    return
                yield piece
        finally:
            while running is not None and not running.done():  # a thread cannot be cancelled; it ends with its pass
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([running])
            if running is not None:
                running.exception()  # nobody asks for it any more
            pieces.close()  # type: ignore[attr-defined]

    def _plans(self, prompts: Sequence[Prompt], logprobs: int | None = None, **sampling: Any) -> list[Plan]:
        if logprobs is not None:
            check_integer("logprobs", logprobs, 0)
        params = SamplingParams(**_checked(sampling))
        for token, _ in params.logit_bias:
            self.tokenizer.token_bytes(token)  # raises for an unknown id
        seed = params.seed if params.seed is not None else secrets.randbits(48)
        return [Plan(prompt, params, (seed, index), logprobs) for index, prompt in enumerate(prompts)]

    def _completions(self, plans: Sequence[Plan]) -> list[Completion]:
        texts: list[list[str]] = [[] for _ in plans]
        ids: list[list[int]] = [[] for _ in plans]
        scores: list[list[TokenLogprob]] = [[] for _ in plans]
        last: dict[int, TextPiece] = {}
        for piece in self.stream_plans(plans):
            texts[piece.index].append(piece.text)
            ids[piece.index].extend(piece.token_ids)
            scores[piece.index].extend(piece.logprobs)
            last[piece.index] = piece
        return [
            Completion(
                "".join(texts[i]), ids[i], last[i].finish_reason or "failed", plan.prompt.tokens, i, scores[i],
                last[i].error,
            )
            for i, plan in enumerate(plans)
        ]  # fmt: skip

    def stream_plans(self, plans: Sequence[Plan]) -> Iterator[TextPiece]:
        """Completes prompts that have sampling options and seeds of their own, numbered by their place."""
        requests = [plan.request(str(next(self._numbers))) for plan in plans]
        sequences = [RunningSequence(request, self.tokenizer, self.max_length) for request in requests]
        chains = [build_chain(self.tokenizer, plan) for plan in plans]
        index_of = {id(sequence): index for index, sequence in enumerate(sequences)}
        held: list[list[int]] = [[] for _ in plans]  # ids whose text is not certain yet
        with closing(run(self.slots, sequences, self.drafter)) as steps:
            for sequence, tokens in steps:
                index = index_of[id(sequence)]
                chain = chains[index]
                delta = chain.push(tokens, sequence.end)
                if chain.stopped:
                    sequence.stop()
                held[index] += delta.token_ids
                if delta.text or sequence.end:
                    scores = tuple(scored.logprob for scored in delta.scored)
                    reason: FinishReason | None = delta.finish or sequence.end
                    error = sequence.error if reason == "failed" else None
                    yield TextPiece(delta.text, tuple(held[index]), index, reason, scores, error)
                    held[index] = []


def _one(prompt: object) -> Any:
    """One prompt. Raises UserError for a list of texts."""
    if isinstance(prompt, (list, tuple)) and any(isinstance(part, str) for part in prompt):
        raise UserError("the prompt is a list of texts; expected one text or a list of token ids: use generate_batch")
    return prompt


def _several(prompts: object) -> Sequence[PromptLike]:
    """Several prompts. Raises UserError for a single one."""
    if isinstance(prompts, (str, bytes)) or not isinstance(prompts, Sequence):
        found = type(prompts).__name__
        raise UserError(f"the prompts are of the type {found}; expected a list of prompts: use generate for one")
    if prompts and all(isinstance(part, int) for part in prompts):
        raise UserError("the prompts are token ids; expected a list of prompts: use generate for one")
    return prompts


def _checked(sampling: dict[str, Any]) -> dict[str, Any]:
    """Keywords of `SamplingParams`. Raises UserError for others, and for stop strings and biases that are none."""
    known = [field.name for field in fields(SamplingParams)]
    if unknown := set(sampling) - set(known):
        raise UserError(
            f"{min(unknown)!r} is no keyword of a completion; expected some of {', '.join(known)}, logprobs"
        )
    stop = sampling.get("stop")
    stop = () if stop is None else (stop,) if isinstance(stop, str) else stop
    if not isinstance(stop, (list, tuple)) or not all(isinstance(text, str) for text in stop):
        raise UserError(f"stop is {stop!r}; expected a text or a list of texts")
    return sampling | {"stop": tuple(stop), "logit_bias": _biases(sampling.get("logit_bias"))}


def _biases(given: object) -> tuple[tuple[int, float], ...]:
    """Pairs of an id and its bias, also those of a mapping. Raises UserError for what is neither."""
    pairs = () if given is None else list(given.items()) if isinstance(given, Mapping) else given
    with suppress(TypeError, ValueError):
        if isinstance(pairs, (list, tuple)):
            return tuple((token, bias) for token, bias in pairs)
    found = reprlib.repr(given)
    raise UserError(f"logit_bias is {found}; expected a number for each of some token ids, such as {{50: -1.5}}")


def load(
    model: Place = "nano",
    *,
    weight_path: Place | None = None,
    config_path: Place | None = None,
    tokenizer_path: Place | None = None,
    quantization_encoding: str | None = None,
    max_length: int = 512,
    allow_longer: bool = False,
    max_batch_size: int = 1,
    reserved_sequences: int = 0,
    serialized_model_path: Place | None = None,
    serialized_model_sha256: str | None = None,
    save_to_serialized_model_path: Place | None = None,
    device: str = "cpu",
    threads: int | None = None,
    mmap: bool | None = None,
    kv_cache_encoding: str | None = None,
    draft: str | None = "auto",
    drafted_sequences: int | None = None,
    progress: Reporter | None = None,
) -> Pipeline:
    """Loads a model: `nano`, a directory, a GGUF file or a hub repository.

    `config_path` and `tokenizer_path` give what its files leave out. `allow_longer`: `max_length` may exceed its own.
    `device` is cpu, gpu, or gpu:1 for the second one; a GPU computes in bfloat16. `mmap` None maps the weights only
    where memory is short. `kv_cache_encoding` is that of keys and values: float32 or bfloat16 on the CPU. A GPU must
    have room for `reserved_sequences` more, in a cache of the caller's own. `draft` says who guesses tokens that are
    then checked several at a time: auto, none (None too), ngram, or a small model's name (pipelines/drafting.py); the
    text is the same with any; `drafted_sequences` are those that it can follow at once. Raises UserError for everything
    that a user can mend.
    """
    progress = progress or Quiet()
    encoding = parse_encoding(quantization_encoding)
    check_integer("max-cache-batch-size", max_batch_size, 1)
    check_integer("max-length", max_length, 1)
    for name, count in (("threads", threads), ("drafted-sequences", drafted_sequences)):
        if count is not None:
            check_integer(name, count, 1)
    weights, config, tokenizer = (os.fspath(p) if p else None for p in (weight_path, config_path, tokenizer_path))
    files = open_model(os.fspath(model), weights, encoding, config, tokenizer)
    if note := check_length(max_length, files.config, allow_longer):
        progress.note(note)
    target, gpu = open_device(device)
    target = replace(target, cache=cache_encoding(kv_cache_encoding, target))
    types = weight_types(files.tensors, encoding if target.own_kernels else gpu_encoding(encoding, target))
    if encoding is None and target.own_kernels:
        for line in substitutions(files.tensors, {name: used for name, (used, _) in types.items()}):
            progress.note(line)
    if not target.on_gpu:
        check_cache_fits(files.config, max_batch_size, max_length, target.cache)
    if target.on_gpu:
        plan_memory(files.config, types, max_batch_size + reserved_sequences, max_length).check(free_bytes(gpu))
    mapped = not fits_in_memory(total_bytes(types)) if mmap is None else mmap
    if mapped and target.panels:
        target = replace(target, panels=False)
        if mmap is None:
            progress.note("memory is short: weights stay mapped from the file, which decodes slower")
    Engine.get(threads, gpu if target.on_gpu else None)
    load_from, save_to = (Path(p) if p else None for p in (serialized_model_path, save_to_serialized_model_path))
    options = CompileOptions(load_from, save_to, serialized_model_sha256)
    compiled = compile_model(files.config, types, options, progress, files.architecture, target)

    def drafter(on_gpu: bool) -> Drafter | None:
        count = drafted_sequences or max_batch_size
        return open_drafter("none" if draft is None else draft, files, total_bytes(types), count, on_gpu, progress)

    if not target.own_kernels:
        bound = bind_weights(compiled, files.tensors, types, mapped=True, device=gpu, target=target)
        on_gpu = GpuModel(files.config, bound, max_batch_size, max_length, gpu, target, progress.note)
        return Pipeline(files, on_gpu, total_bytes(types), drafter(True))
    bound = bind_weights(compiled, files.tensors, types, mapped, target=target)
    on_cpu = CpuModel(files.config, bound, max_batch_size, max_length, target)
    pipeline = Pipeline(files, on_cpu, total_bytes(types), drafter(False))
    pipeline.digest = CompileKey.of(files.architecture, files.config, types, target).digest
    return pipeline


def cache_encoding(requested: str | None, target: Target) -> Encoding:
    """The encoding of keys and values on a target. Raises UserError for one that it cannot have."""
    known = CPU_CACHES if target.own_kernels else (target.cache,)
    if requested is not None and requested not in known:
        where = "on the CPU" if target.own_kernels else "with --use-gpu"
        raise UserError(f"--kv-cache-encoding is {requested!r}; expected {' or '.join(known)} {where}")
    return target.cache if requested is None else Encoding(requested)


def gpu_encoding(requested: Encoding | None, target: Target) -> Encoding:
    """The encoding of matrices with MAX's kernels. Raises UserError if another one is requested."""
    if requested not in (None, target.activations):
        raise UserError(
            f"--quantization-encoding is {requested}; expected {target.activations} with --use-gpu: leave it out, "
            "matrices in other encodings are converted"
        )
    return target.activations
