"""Live comparison with transformers, where it is installed; tests/test_model.py has the recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models import random_ids, random_model, score
from pipelines.terminal.progress import Quiet
from replit.architecture import REPLIT
from replit.config import from_checkpoint
from replit.cpu.model import CpuModel
from replit.runtime.bind import bind_weights
from replit.runtime.compile import CompileOptions, compile_model
from replit.runtime.weight_memory import weight_types
from replit.weight_names import map_weights
from weights.files.checkpoint import open_checkpoint

torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")
pytest.importorskip("transformers", reason="compares with transformers, which is not installed")


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-4), ("bfloat16", 3e-2)])
def test_a_directory_saved_by_transformers_gives_its_logits(tmp_path: Path, dtype: str, bound: float) -> None:
    from record_golden import transformers_model

    random = random_model(4)
    theirs = transformers_model(random).to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    config = from_checkpoint(checkpoint)
    tensors = map_weights(checkpoint, config)
    types = weight_types(tensors, None)
    compiled = compile_model(config, types, CompileOptions(), Quiet(), REPLIT)
    ours = CpuModel(config, bind_weights(compiled, tensors, types, mapped=True), 1, 512)
    ids = random_ids(random, 300)
    with torch.no_grad():
        expected = theirs.float()(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(score(ours, ids), expected, atol=bound, rtol=0)
