"""The Python interface: a loaded model that completes text.

Ids come from generate.py, text from text_stream.py above it; the command line and the benchmarks use only this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.engine.loop import FinishReason, Request, generate
from pipelines.engine.sampling import SamplingParams
from pipelines.registry import ModelFiles, open_model
from pipelines.terminal.progress import Quiet
from pipelines.text.completion_mode import CompletionStream, text_before_cursor
from replit.cpu.model import CpuModel
from replit.decoder.architecture import DecoderConfig
from replit.gpu.device import free_bytes, open_device, plan_memory
from replit.gpu.model import GpuModel
from replit.runtime.bind import bind_weights
from replit.runtime.compile import CompileOptions, Reporter, compile_model
from replit.runtime.engine import Engine
from replit.runtime.target import Target
from replit.runtime.weight_memory import fits_in_memory, total_bytes, weight_types
from weights.errors import UserError
from weights.tensor import Encoding
from weights.tokenizers.tokenizer import Tokenizer

Prompt = str | Sequence[int]


@dataclass(frozen=True)
class TextPiece:
    """Text that became certain, and the ids since the last piece. `index` counts prompts and samples."""

    text: str
    token_ids: tuple[int, ...]
    index: int = 0
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class Completion:
    """A finished completion. `token_ids` holds what was generated, without the end-of-text token."""

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    prompt_tokens: int
    index: int = 0


class Pipeline:
    """A model in memory. Not for use by several threads at once."""

    def __init__(self, files: ModelFiles, model: CpuModel | GpuModel, weight_bytes: int) -> None:
        self.name = files.name
        self.tokenizer: Tokenizer = files.tokenizer
        self.config: DecoderConfig = files.config
        self.model = model
        self.weight_bytes = weight_bytes

    @property
    def max_length(self) -> int:
        """Longest sequence, prompt included."""
        return self.model.max_length

    def encode(self, prompt: Prompt) -> list[int]:
        """The prompt's token ids, checked: UserError if there are none, too many or unknown ones."""
        if isinstance(prompt, str):
            ids = self.tokenizer.encode(prompt)
        else:
            ids = [int(token) for token in prompt]
        if not ids:
            raise UserError("the prompt is empty; expected at least one token: give --prompt")
        for token in ids:
            self.tokenizer.token_bytes(token)  # raises for an unknown id
        if len(ids) >= self.max_length:
            raise UserError(
                f"the prompt has {len(ids)} tokens; expected fewer than {self.max_length}: shorten "
                f"it, or raise --max-length (this model's limit is {self.config.max_seq_len})"
            )
        return ids

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits after every id, float32 `[len(ids), vocab]`; at most `max_length` ids."""
        if len(ids) == self.max_length:
            self.encode(ids[:-1])
            self.tokenizer.token_bytes(ids[-1])
        else:
            self.encode(ids)
        return self.model.score([int(token) for token in ids])

    def stream(self, prompt: Prompt, **sampling: Any) -> Iterator[TextPiece]:
        """Completes one prompt, piece by piece; the last piece carries the finish reason.

        Keywords: see `SamplingParams`. Raises UserError for an unusable prompt or keyword.
        """
        return self.stream_batch([prompt], **sampling)

    def generate(self, prompt: Prompt, **sampling: Any) -> Completion:
        """Completes one prompt. See `stream`."""
        return self.generate_batch([prompt], **sampling)[0]

    def generate_batch(self, prompts: Sequence[Prompt], **sampling: Any) -> list[Completion]:
        """Completes several prompts, as many at once as `max_batch_size` allows; in order."""
        encoded = [self.encode(prompt) for prompt in prompts]
        texts: list[list[str]] = [[] for _ in prompts]
        ids: list[list[int]] = [[] for _ in prompts]
        reasons: dict[int, FinishReason] = {}
        for piece in self.stream_batch(encoded, **sampling):
            texts[piece.index].append(piece.text)
            ids[piece.index].extend(piece.token_ids)
            if piece.finish_reason:
                reasons[piece.index] = piece.finish_reason
        return [Completion("".join(texts[i]), ids[i], reasons[i], len(encoded[i]), i) for i in range(len(prompts))]

    def stream_batch(self, prompts: Sequence[Prompt], **sampling: Any) -> Iterator[TextPiece]:
        """Completes several prompts; pieces of different prompts interleave, told apart by `index`."""
        params = SamplingParams(**_as_tuple(sampling))
        seed = params.seed if params.seed is not None else int.from_bytes(np.random.bytes(6), "big")
        requests = [
            Request(self.encode(prompt), params, np.random.default_rng([seed, index]), index)
            for index, prompt in enumerate(prompts)
        ]
        return self.stream_requests(requests)

    def _text_stream(self, request: Request) -> CompletionStream:
        params = request.params
        before = text_before_cursor(self.tokenizer, request.prompt_ids)
        return CompletionStream(self.tokenizer, params.stop, params.completion, before, params.strip)

    def stream_requests(self, requests: list[Request]) -> Iterator[TextPiece]:
        """Completes prompts that have sampling options and random generators of their own, numbered by place."""
        streams = [self._text_stream(request) for request in requests]
        emitted = [0] * len(requests)
        open_requests = set(range(len(requests)))

        def piece(request: Request, text: str) -> TextPiece:
            index = request.index
            ids = tuple(request.ids[emitted[index] :])
            emitted[index] = len(request.ids)
            return TextPiece(text, ids, index, request.finish_reason)

        def closed() -> Iterator[TextPiece]:
            for index in sorted(open_requests):
                request = requests[index]
                if request.finish_reason:
                    open_requests.discard(index)
                    yield piece(request, streams[index].finish())

        for request, token in generate(self.model, requests, self.tokenizer.eos_token_id):
            text = streams[request.index].push(token)
            if streams[request.index].stopped:
                request.finish_reason = "stop"
            if request.finish_reason is None and text:
                yield piece(request, text)
            elif request.finish_reason:
                open_requests.discard(request.index)
                yield piece(request, text + streams[request.index].finish())
            yield from closed()
        yield from closed()


def _as_tuple(sampling: dict[str, Any]) -> dict[str, Any]:
    stop = sampling.get("stop", ())
    return sampling | {"stop": (stop,) if isinstance(stop, str) else tuple(stop or ())}


def load(
    model: str = "nano",
    *,
    weight_path: str | None = None,
    quantization_encoding: str | None = None,
    max_length: int = 512,
    max_batch_size: int = 1,
    reserved_sequences: int = 0,
    serialized_model_path: str | None = None,
    save_to_serialized_model_path: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    mmap: bool | None = None,
    progress: Reporter | None = None,
) -> Pipeline:
    """Loads a model: `nano`, a directory, a GGUF file or a hub repository.

    `device` is cpu, gpu, or gpu:1 for the second one; a GPU computes in bfloat16. `mmap` None maps the weights only
    where memory is short. A GPU must have room for `reserved_sequences` more, in a cache of the caller's own. Raises
    UserError for everything that a user can mend.
    """
    progress = progress or Quiet()
    encoding = parse_encoding(quantization_encoding)
    _check_positive("max-cache-batch-size", max_batch_size)
    _check_positive("max-length", max_length)
    if threads is not None:
        _check_positive("threads", threads)
    files = open_model(model, weight_path, encoding)
    if max_length > files.config.max_seq_len:
        raise UserError(
            f"--max-length is {max_length}; expected at most {files.config.max_seq_len}, this model's limit"
        )
    target, gpu = open_device(device)
    types = weight_types(files.tensors, encoding if target.own_kernels else gpu_encoding(encoding, target))
    if target.on_gpu:
        plan_memory(files.config, types, max_batch_size + reserved_sequences, max_length).check(free_bytes(gpu))
    Engine.get(threads, gpu if target.on_gpu else None)
    options = CompileOptions(*(Path(p) if p else None for p in (serialized_model_path, save_to_serialized_model_path)))
    compiled = compile_model(files.config, types, options, progress, files.architecture, target)
    if not target.own_kernels:
        bound = bind_weights(compiled, files.tensors, types, mapped=True, device=gpu, target=target)
        on_gpu = GpuModel(files.config, bound, max_batch_size, max_length, gpu, target, progress.note)
        return Pipeline(files, on_gpu, total_bytes(types))
    mapped = not fits_in_memory(total_bytes(types)) if mmap is None else mmap
    if mapped and mmap is None:
        progress.note("memory is short: weights stay mapped from the file, which decodes slower")
    bound = bind_weights(compiled, files.tensors, types, mapped)
    return Pipeline(files, CpuModel(files.config, bound, max_batch_size, max_length), total_bytes(types))


def gpu_encoding(requested: Encoding | None, target: Target) -> Encoding:
    """The encoding of matrices with MAX's kernels. Raises UserError if another one is requested."""
    if requested not in (None, target.activations):
        raise UserError(
            f"--quantization-encoding is {requested}; expected {target.activations} with --use-gpu: leave it out, "
            "matrices in other encodings are converted"
        )
    return target.activations


def parse_encoding(name: str | None) -> Encoding | None:
    """The encoding of that name. Raises UserError for an unknown one."""
    if name is None:
        return None
    try:
        return Encoding(name.lower())
    except ValueError:
        known = ", ".join(encoding.value for encoding in Encoding)
        raise UserError(f"--quantization-encoding is {name!r}; expected one of {known}") from None


def _check_positive(option: str, value: int) -> None:
    if value < 1:
        raise UserError(f"--{option} is {value}; expected a whole number from 1 up")
