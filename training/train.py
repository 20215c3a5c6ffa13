"""Trains nano.

    python -m training.train --data DIR --out DIR [--steps N] [--resume]

Muon for the matrices of the blocks, AdamW for the embedding and the norms; warm-up, constant rate, then a linear
cool-down to zero over the last `--cooldown` steps, which may be chosen when resuming. A running average of the
weights is kept and is what gets exported. Deterministic by seed; a resumed run continues bit for bit.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._inductor import config as inductor_config
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from training.batches import SOURCES, Batches, heldout_rows
from training.model import ModelConfig, Nano
from training.precision import fast_dtype


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the result, besides the data and the model's shape."""

    steps: int = 4000
    files_rows: int = 2  # rows of a batch from each source
    fim_rows: int = 3
    snippets_rows: int = 2
    loops_rows: int = 1
    seq_len: int = 512
    warmup: int = 100
    cooldown: int = 800
    matrix_rate: float = 0.004
    embedding_rate: float = 0.003
    weight_decay: float = 0.05
    average: float = 0.995  # the average reaches back about 1 / (1 - average) steps
    seed: int = 0
    save_every: int = 100
    compile: bool = False
    adapt_threads: bool = False

    @property
    def rows(self) -> dict[str, int]:
        """Rows of a batch by source."""
        return {name: getattr(self, f"{name}_rows") for name in SOURCES}

    @property
    def batch_rows(self) -> int:
        """Rows of a batch."""
        return sum(self.rows.values())


def rate_factor(step: int, c: TrainConfig) -> float:
    """Share of the peak learning rate at a step."""
    return min(1.0, (step + 1) / c.warmup, (c.steps - step) / max(1, c.cooldown))


class ThreadChooser:
    """One or two threads a step, whichever was faster lately: on a shared machine two wait for each other.

    Sums then differ in the last bit with the choice, so a run that uses this does not repeat bit for bit.
    """

    def __init__(self) -> None:
        inductor_config.cpp.dynamic_threads = True
        self._seconds = {1: 0.0, 2: 0.0}  # of the last step with so many threads
        self._steps = 0

    def step(self, train_step: Callable[[], float]) -> float:
        """Runs and times one step."""
        best = min(self._seconds, key=lambda n: self._seconds[n])
        threads = best if self._steps % 8 else 3 - best
        torch.set_num_threads(threads)
        started = time.monotonic()
        loss = train_step()
        self._seconds[threads] = time.monotonic() - started
        self._steps += 1
        return loss


class Trainer:
    """Model, optimizers, averaged weights and the step count: the whole state of a run."""

    def __init__(self, model_config: ModelConfig, config: TrainConfig, data: Path, device: str) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.model = Nano(model_config).to(device)
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.batches = Batches(data, config.rows, config.seq_len, config.seed)
        self.step = 0
        matrices = [p for p in self.model.blocks.parameters() if p.ndim == 2]
        others = [p for p in self.model.parameters() if all(p is not m for m in matrices)]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices,
                lr=config.matrix_rate,
                weight_decay=config.weight_decay,
                momentum=0.95,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(others, lr=config.embedding_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        ]
        self._loss = torch.compile(self.model.loss) if config.compile else self.model.loss

    def _loss_of(self, *batch: Tensor) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, fast_dtype(self.device) == torch.bfloat16):
            return self._loss(*(part.to(self.device) for part in batch))

    def train_step(self) -> float:
        """One update; returns the loss before it, in nats a token."""
        c = self.config
        loss = self._loss_of(*self.batches.batch(self.step))
        loss.backward()
        clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, peak in zip(self.optimizers, (c.matrix_rate, c.embedding_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * rate_factor(self.step, c)
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        keep = min(c.average, self.step / (self.step + 10))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - keep)
        return float(loss.detach())

    @torch.no_grad()
    def heldout_loss(self, rows: tuple[Tensor, Tensor]) -> float:
        """Loss of the averaged weights on held-out rows, in nats a token."""
        current = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        pairs = zip(*(r.split(self.config.batch_rows) for r in rows), strict=True)
        losses = [float(self._loss_of(ids, targets)) for ids, targets in pairs]
        self.model.load_state_dict(current)
        return sum(losses) / len(losses)

    def save(self, path: Path) -> None:
        """Writes the state to a temporary name and renames it."""
        state = {
            "step": self.step,
            "model_config": asdict(self.model.config),
            "train_config": asdict(self.config),
            "model": self.average,
            "current": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)

    def load(self, path: Path) -> None:
        """Continues from a saved state."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["current"])
        self.average = {k: v.clone() for k, v in state["model"].items()}
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def run(trainer: Trainer, data: Path, out: Path) -> None:
    """Trains to the last step, saving and measuring as it goes; out/log.jsonl gets a line every ten steps."""
    c = trainer.config
    rows = heldout_rows(data, 64, c.seq_len)
    with (out / "log.jsonl").open("a") as log:
        bar = tqdm(total=c.steps, initial=trainer.step, unit="step", mininterval=5)
        recent: list[float] = []
        step = ThreadChooser().step if c.adapt_threads else lambda train_step: train_step()
        while trainer.step < c.steps:
            recent.append(step(trainer.train_step))
            bar.update()
            last = trainer.step == c.steps
            record: dict[str, Any] = {"step": trainer.step, "time": round(time.time())}
            if trainer.step % c.save_every == 0 or last:
                record["heldout"] = round(trainer.heldout_loss(rows), 4)
                trainer.save(out / "checkpoint.pt")
            if trainer.step % 10 == 0 or last:
                record["loss"] = round(sum(recent) / len(recent), 4)
                record["tokens"] = trainer.step * c.batch_rows * c.seq_len
                bar.set_postfix_str(f"loss {record['loss']:.3f} {math.exp(record['loss']):.0f}")
                print(json.dumps(record), file=log, flush=True)
                recent = []
        bar.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the prepared arrays")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint.pt and log.jsonl")
    parser.add_argument("--resume", action="store_true", help="continue from out/checkpoint.pt")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for cls in (ModelConfig, TrainConfig):
        for f in fields(cls):
            name = "--" + f.name.replace("_", "-")
            if isinstance(f.default, bool):
                parser.add_argument(name, action=argparse.BooleanOptionalAction, default=f.default)
            else:
                parser.add_argument(name, type=type(f.default), default=f.default)
    return parser


def main() -> None:
    """Command line."""
    args = vars(_parser().parse_args())
    model_config, config = (cls(**{f.name: args[f.name] for f in fields(cls)}) for cls in (ModelConfig, TrainConfig))
    args["out"].mkdir(parents=True, exist_ok=True)
    trainer = Trainer(model_config, config, args["data"], args["device"])
    if args["resume"]:
        trainer.load(args["out"] / "checkpoint.pt")
    run(trainer, args["data"], args["out"])


if __name__ == "__main__":
    main()
