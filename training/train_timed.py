"""Trains nano for a given time on one GPU, which may be lent for minutes only.

    python -m training.train_timed --data DIR --out DIR --minutes 5

DIR has shards (training/pack.py), tokenizer.json and heldout.npy. The schedule is one of time: a warm-up of steps,
constant rates, and from `--hold` on (a share of the time) a linear cool-down that ends at zero when the time is over,
however many steps that was; compiling counts. The running average of the weights is written each minute
(training/flat_weights.py), so that a cut loses little. `--start` begins with such weights: the optimizers'
state is not needed, it is gathered anew while the rate rises from nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from training import flat_weights
from training.loops import line_starts
from training.model import ModelConfig, Nano
from training.muon import StackedMuon
from training.packed import read_shards
from training.precision import fast_dtype
from training.rows import Rows
from training.samples import write_samples

SHAPE = ModelConfig(vocab_size=16384, d_model=448, n_layers=4, n_heads=7, n_kv_heads=1)


@dataclass(frozen=True)
class TimedConfig:
    """Everything that decides the result, besides data, shape and the machine's speed."""

    minutes: float = 5.0
    files_rows: int = 21
    fim_rows: int = 22
    snippets_rows: int = 10
    textbook_rows: int = 7
    loops_rows: int = 2
    repeats_rows: int = 2
    seq_len: int = 1024
    accumulate: int = 2  # batches of a step, from `double_at` on; one before
    double_at: float = 0.25
    warmup: int = 100  # steps
    hold: float = 0.3
    matrix_rate: float = 0.006
    embedding_rate: float = 0.004
    weight_decay: float = 0.05
    average: float = 0.99  # the average reaches back about 1 / (1 - average) steps
    save_minutes: float = 1.0  # on a CPU a held-out loss takes half a minute
    seed: int = 0
    compile: bool = True

    @property
    def rows(self) -> dict[str, int]:
        """Rows of a batch by source."""
        suffix = "_rows"
        return {f.name.removesuffix(suffix): getattr(self, f.name) for f in fields(self) if f.name.endswith(suffix)}


@dataclass
class Clock:
    """The share of the time given that is over; it starts with the program."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    @property
    def share(self) -> float:
        """0 at the start, 1 when the time is over."""
        return min(1.0, (time.monotonic() - self.started) / self.seconds)


def rate_factor(step: int, share: float, c: TimedConfig) -> float:
    """Share of the peak rates at a step that begins when `share` of the time is over."""
    return min(1.0, (step + 1) / c.warmup, (1 - share) / (1 - c.hold))


class TimedTrainer:
    """Model, optimizers and averaged weights."""

    def __init__(self, model: Nano, c: TimedConfig, rows: Rows, device: str) -> None:
        self.model, self.c, self.rows, self.device = model.to(device), c, rows, device
        self.step = self.tokens = 0
        self.parameters = list(model.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
        others = [p for p in self.parameters if all(p is not m for m in matrices)]
        self._muon = StackedMuon(matrices, c.matrix_rate, c.weight_decay)
        fused = device.startswith("cuda")
        self._adam = torch.optim.AdamW(others, c.embedding_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=fused)
        self._loss_of_hidden = model.loss_of_hidden
        if c.compile:
            for block in model.blocks:
                block.compile()  # compiled once for all, as they are alike
            self._loss_of_hidden = torch.compile(model.loss_of_hidden)

    def autocast(self) -> torch.autocast:
        """Products in the precision that the device is fast in."""
        kind, dtype = self.device.split(":")[0], fast_dtype(self.device)
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)

    def loss(self, ids: Tensor, targets: Tensor, earlier: Tensor | None, documents: Tensor) -> Tensor:
        """As `Nano.loss`, compiled piece by piece."""
        with self.autocast():
            return self._loss_of_hidden(self.model.hidden(ids, documents), targets, earlier)

    def train_step(self, share: float) -> Tensor:
        """One update; the loss before it, still on the device."""
        c = self.c
        batches = c.accumulate if share >= c.double_at else 1
        total = torch.zeros((), device=self.device)
        for _ in range(batches):
            batch = self.rows.batch()
            loss = self.loss(*batch) / batches
            loss.backward()
            total += loss.detach()
            self.tokens += batch[0].numel()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self._update(rate_factor(self.step, share, c))
        self.step += 1
        keep = min(c.average, self.step / (self.step + 10))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - keep)
        return total

    def _update(self, factor: float) -> None:
        for optimizer, peak in ((self._muon, self.c.matrix_rate), (self._adam, self.c.embedding_rate)):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad()

    def averaged(self) -> Nano:
        """A copy of the model with the averaged weights."""
        model = Nano(self.model.config).to(self.device)
        for p, value in zip(model.parameters(), self.average, strict=True):
            p.data.copy_(value)
        return model

    @torch.no_grad()
    def heldout_loss(self, rows: Tensor) -> float:
        """Loss of the averaged weights on held-out rows [B, T + 1], in nats a token."""
        model, losses = self.averaged(), []
        for part in rows.to(self.device).long().split(16):
            with self.autocast():
                losses.append(model.loss(part[:, :-1], part[:, 1:], None, torch.zeros_like(part[:, :-1])))
        return float(torch.stack(losses).mean())


def train(trainer: TimedTrainer, clock: Clock, heldout: Tensor, out: Path) -> None:
    """Steps until the time is over; weights and a line in out/log.jsonl every `save_minutes` and at the end."""
    shown = saved = time.monotonic()
    last = torch.zeros(())
    while (share := clock.share) < 1:
        loss = trainer.train_step(share)
        last.item()  # the step before: at most one step waits for the device
        last = loss
        now = time.monotonic()
        if now - shown > 5 or trainer.step in (1, 2, 10):
            print(f"{now - clock.started:6.1f} s  step {trainer.step}  loss {float(last):.3f}", flush=True)
            shown = now
        if now - saved > 60 * trainer.c.save_minutes:
            save(trainer, clock, heldout, out)
            saved = now
    save(trainer, clock, heldout, out)


def save(trainer: TimedTrainer, clock: Clock, heldout: Tensor, out: Path) -> None:
    """Writes the averaged weights and logs their held-out loss."""
    progress: dict[str, object] = {
        "step": trainer.step,
        "tokens": trainer.tokens,
        "seconds": round(time.monotonic() - clock.started, 1),
        "epochs": trainer.rows.epochs(),
    }
    flat_weights.save(out, trainer.model.config, trainer.average, progress | {"train_config": asdict(trainer.c)})
    line = json.dumps(progress | {"heldout": round(trainer.heldout_loss(heldout), 4)})
    with (out / "log.jsonl").open("a") as file:
        print(line, file=file)
    print(line, flush=True)


def build(model: Nano, c: TimedConfig, data: Path, device: str) -> TimedTrainer:
    """The trainer; where the first step fails as compiled, one without compiling."""
    tokenizer = Tokenizer.from_file(str(data / "tokenizer.json"))
    arrays = read_shards(sorted(data.rglob("*.xz")))
    print({name: (len(ids), len(starts)) for name, (ids, starts) in arrays.items()}, flush=True)
    rows = Rows(arrays, c.rows, c.seq_len, line_starts(tokenizer), c.seed, device)
    initial = [p.detach().clone() for p in model.parameters()]
    trainer = TimedTrainer(model, c, rows, device)
    if c.compile and not _works(trainer):
        plain = Nano(model.config)
        for p, value in zip(plain.parameters(), initial, strict=True):
            p.data.copy_(value)
        trainer = TimedTrainer(plain, replace(c, compile=False), rows, device)
    return trainer


def _works(trainer: TimedTrainer) -> bool:
    try:
        trainer.loss(*trainer.rows.batch()).backward()
    except Exception as error:  # whatever a compiler of another machine may raise
        print(f"not compiled: {error}", flush=True)
        return False
    for p in trainer.parameters:
        p.grad = None
    return True


def starting_weights(path: Path) -> Nano:
    """The model of a folder of this program or of a GGUF file."""
    if path.is_dir():
        return flat_weights.load(path)
    from training.export_gguf import load_gguf  # a lent machine has no gguf package

    return load_gguf(path).train()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with shards, tokenizer.json and heldout.npy")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and log.jsonl")
    parser.add_argument("--start", type=Path, help="weights to begin with: a folder of this program, or nano's GGUF")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for defaults in (SHAPE, TimedConfig()):
        for name, value in asdict(defaults).items():
            action = {"action": argparse.BooleanOptionalAction} if isinstance(value, bool) else {"type": type(value)}
            parser.add_argument("--" + name.replace("_", "-"), default=value, **action)
    return parser


def _of(cls: type, args: Mapping[str, object]) -> object:
    return cls(**{f.name: args[f.name] for f in fields(cls)})


def main() -> None:
    """Command line."""
    args = vars(_parser().parse_args())
    c = _of(TimedConfig, args)
    assert isinstance(c, TimedConfig)
    clock = Clock(60 * c.minutes)
    torch.manual_seed(c.seed)
    torch.set_float32_matmul_precision("high")
    args["out"].mkdir(parents=True, exist_ok=True)
    model = starting_weights(args["start"]) if args["start"] else Nano(_of(ModelConfig, args))
    trainer = build(model, c, args["data"], args["device"])
    print(f"{time.monotonic() - clock.started:.1f} s to begin", flush=True)
    heldout = torch.from_numpy(np.load(args["data"] / "heldout.npy").astype(np.int64))
    train(trainer, clock, heldout, args["out"])
    write_samples(trainer.averaged(), args["data"] / "tokenizer.json", args["out"] / "samples.txt")


if __name__ == "__main__":
    main()
