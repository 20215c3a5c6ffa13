"""Files of llama.cpp's own quantizer, in every type that it has, and our importance matrix given to it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import gguf
import numpy as np
import pytest
from tiny_model import run_convert, write_model

from replit.config import from_checkpoint
from replit.decoder.encodings import COMPUTED_IN
from replit.runtime.weight_memory import COMPUTABLE, weight_types
from replit.weight_names import map_weights
from weights.files.checkpoint import open_checkpoint
from weights.files.imatrix_file import read_imatrix
from weights.quantization import to_float32
from weights.tokenizers.load import load_tokenizer

llama_cpp = pytest.importorskip("llama_cpp", reason="makes files with llama.cpp's quantizer")
PREFIX = "LLAMA_FTYPE_MOSTLY_"
KINDS = sorted(name.removeprefix(PREFIX) for name in dir(llama_cpp) if name.startswith(PREFIX))
#: Of these llama-quantize has a name but makes no file.
NOT_MADE = {"NVFP4"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A float32 file and the importance matrix that --calibrate found."""
    folder = tmp_path_factory.mktemp("made")
    source = write_model(folder / "tiny-code-v1_5-1m")
    run_convert(source, folder / "f32.gguf", "--quantization-encoding", "float32")
    options = ["--quantization-encoding", "q4_0", "--calibrate", __file__, "--save-imatrix", folder / "imatrix.gguf"]
    run_convert(source, folder / "q4_0.gguf", *options)
    return folder / "f32.gguf", folder / "imatrix.gguf"


def llama_quantize(source: Path, imatrix: Path, kind: str, path: Path) -> bool:
    """What llama-quantize --imatrix does; whether there is a file."""
    squares = read_imatrix(imatrix)
    entries = (llama_cpp.llama_model_imatrix_data * (len(squares) + 1))()
    for entry, (name, values) in zip(entries, squares.items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = np.ascontiguousarray(values, np.float32).ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, options.nthread = getattr(llama_cpp, PREFIX + kind), 1
    options.imatrix = ctypes.cast(entries, type(options.imatrix)) if hasattr(options, "imatrix") else None
    return bool(llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), options) == 0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_of_llama_quantize_opens(made: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.gguf"
    if not llama_quantize(*made, kind, path):
        assert kind in NOT_MADE
        return
    checkpoint = open_checkpoint(path)
    tensors = map_weights(checkpoint, from_checkpoint(checkpoint))
    assert load_tokenizer(checkpoint).eos_token_id == 0
    for encoding, _ in weight_types(tensors, None).values():
        assert encoding in COMPUTABLE
    if kind in ("Q1_0", "Q2_0"):  # newer than gguf-py
        assert {t.encoding.value for t in tensors.values()} >= {kind.lower()}
        return
    for tensor in gguf.GGUFReader(path).tensors:
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(to_float32(checkpoint.tensors[tensor.name]).reshape(-1), expected.reshape(-1))


def test_each_readable_type_is_among_them(made: tuple[Path, Path], tmp_path: Path) -> None:
    """No type is computed in another that nobody writes; mxfp4 is for experts, nvfp4 for converters alone."""
    found = set()
    for kind in KINDS:
        if llama_quantize(*made, kind, tmp_path / "m.gguf"):
            found |= {tensor.encoding for tensor in open_checkpoint(tmp_path / "m.gguf").tensors.values()}
    missing = {encoding.value for encoding in COMPUTED_IN if encoding.is_quantized} - {e.value for e in found}
    assert missing <= {"mxfp4", "nvfp4", "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs"}
