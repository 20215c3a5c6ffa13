"""Conversion to GGUF: contents, llama.cpp both ways, and what happens when it fails."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from tiny_model import weights as tiny_weights
from tiny_model import write_model, write_safetensors, write_tokenizer

import reference
from pipelines.convert_command import convert
from replit.config import from_checkpoint
from replit.encodings import choose_encodings
from replit.weight_names import map_weights
from weights.checkpoint import Checkpoint, open_checkpoint
from weights.convert import TARGETS, encode_tensor, write_gguf
from weights.errors import UserError
from weights.model_name import ModelName, file_name, parse_name
from weights.quantization import quantize
from weights.tensor import Encoding, Tensor
from weights.tokenizer import load_tokenizer

TEXT = "def area(r1):\n    return 3.14 * r1 ** 2  # über\n"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("hub") / "tiny-code-v1_5-1m")


@pytest.fixture(scope="module")
def converted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Encoding, Path]:
    """The tiny model in every encoding."""
    folder = tmp_path_factory.mktemp("converted")
    for encoding in TARGETS:
        run(source, folder / f"{encoding}.gguf", "--quantization-encoding", str(encoding))
    return {encoding: folder / f"{encoding}.gguf" for encoding in TARGETS}


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(convert, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def numpy_weights(checkpoint: Checkpoint) -> dict[str, npt.NDArray[np.float32]]:
    tensors = map_weights(checkpoint, from_checkpoint(checkpoint))
    return {name: tensor.to_float32() for name, tensor in tensors.items()}


@pytest.mark.parametrize("encoding", TARGETS)
def test_every_tensor_has_the_promised_encoding_and_bytes(
    source: Path, converted: dict[Encoding, Path], encoding: Encoding
) -> None:
    original, written = open_checkpoint(source), open_checkpoint(converted[encoding])
    config = from_checkpoint(written)
    assert config.layer_norm_eps == np.float32(1e-5)  # GGUF holds it in 32 bits
    assert replace(config, layer_norm_eps=1e-5) == from_checkpoint(original)
    expected = numpy_weights(original)
    assert set(written.tensors) == set(expected)
    for name, tensor in written.tensors.items():
        stored = encoding
        if "norm" in name:
            stored = Encoding.FLOAT32
        elif name == "token_embd.weight" and encoding.is_quantized:
            stored = Encoding.Q8_0
        elif "attn_qkv" in name and encoding is Encoding.Q4_K:
            stored = Encoding.Q6_K
        assert tensor.encoding is stored, name
        np.testing.assert_array_equal(tensor.data, quantize(expected[name], stored).reshape(-1))


def test_the_tokenizer_travels(source: Path, converted: dict[Encoding, Path]) -> None:
    before = load_tokenizer(open_checkpoint(source))
    after = load_tokenizer(open_checkpoint(converted[Encoding.Q4_0]))
    assert after.encode(TEXT) == before.encode(TEXT)
    assert after.vocab_size == before.vocab_size == 640
    assert after.special == before.special
    assert after.eos_token_id == 0


def test_digits_apart_are_kept_apart(source: Path, tmp_path: Path) -> None:
    directory = write_model(tmp_path / "digits")
    write_tokenizer(directory / "tokenizer.json", digits_apart=True)
    run(directory, tmp_path / "digits.gguf")
    written = open_checkpoint(tmp_path / "digits.gguf")
    assert written.metadata["tokenizer.ggml.pre"] == "refact"
    ids = load_tokenizer(open_checkpoint(directory)).encode("x = 12345")
    assert load_tokenizer(written).encode("x = 12345") == ids


def test_normalization_of_the_text_is_kept(tmp_path: Path) -> None:
    """GPT-NeoX's tokenizer, which replit-code-v1_5's comes from, composes accents."""
    directory = write_model(tmp_path / "composed")
    write_tokenizer(directory / "tokenizer.json", composed=True)
    run(directory, tmp_path / "composed.gguf")
    tokenizer = load_tokenizer(open_checkpoint(tmp_path / "composed.gguf"))
    assert tokenizer.encode("nai\u0308ve") == tokenizer.encode("na\u00efve")
    before = load_tokenizer(open_checkpoint(directory))
    assert tokenizer.encode("nai\u0308ve") == before.encode("nai\u0308ve")


def test_a_gguf_source_keeps_what_it_says_about_itself(converted: dict[Encoding, Path], tmp_path: Path) -> None:
    run(converted[Encoding.FLOAT32], tmp_path / "again.gguf", "--quantization-encoding", "q8_0")
    again = open_checkpoint(tmp_path / "again.gguf")
    direct = open_checkpoint(converted[Encoding.Q8_0])
    assert again.metadata == direct.metadata
    assert again.metadata["general.name"] == "tiny-code-v1_5-1m"
    for name, tensor in direct.tensors.items():
        np.testing.assert_array_equal(again.tensors[name].data, tensor.data)


def test_blocks_that_are_right_already_are_copied(converted: dict[Encoding, Path], tmp_path: Path) -> None:
    result = run(converted[Encoding.Q4_K], tmp_path / "copy.gguf", *Q4_K)
    assert "is quantized already: the original would lose less" in result.stderr
    assert (tmp_path / "copy.gguf").read_bytes() == converted[Encoding.Q4_K].read_bytes()


Q4_K = ("--quantization-encoding", "q4_k")


def test_a_directory_gets_the_conventional_name(source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path, *Q4_K)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-code-1.6M-v1.5-Q4_K.gguf"]
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [" ".join(line.split()) for line in lines[:3]] == [
        "token_embd.weight 640 x 256 bfloat16 -> q8_0",
        "blk.0.attn_norm.weight 256 bfloat16 -> float32",
        "blk.0.attn_qkv.weight 512 x 256 bfloat16 -> q6_k",
    ]
    assert lines[-1].endswith(" bytes, 5.27 bits a weight")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("replit/replit-code-v1_5-3b", ModelName("replit-code", None, "v1.5")),
        ("replit-code-v1-3b", ModelName("replit-code", None, "v1.0")),
        ("smallcloudai/Refact-1_6B-fim", ModelName("Refact", "fim", None)),
        ("replit-code-v1_5-3b-bf16.gguf", ModelName("replit-code", None, "v1.5")),
        ("replit-code-3.3B-v1.5-Q4_K.gguf", ModelName("replit-code", None, "v1.5")),
        ("nano", ModelName("nano", None, None)),
        ("v1_5-3b", ModelName("model", None, "v1.5")),
    ],
)
def test_names_are_taken_apart(name: str, expected: ModelName) -> None:
    assert parse_name(name) == expected


def test_file_names_follow_the_convention() -> None:
    name = ModelName("replit-code", None, "v1.5")
    assert file_name(name, 3_322_088_448, Encoding.Q4_0) == "replit-code-3.3B-v1.5-Q4_0.gguf"
    assert file_name(name, 3_322_088_448, Encoding.BFLOAT16) == "replit-code-3.3B-v1.5-BF16.gguf"


def test_pytorch_files_give_the_same_model(source: Path, converted: dict[Encoding, Path], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="reads a file that torch wrote")
    directory = write_model(tmp_path / "tiny-code-v1_5-1m")
    (directory / "model.safetensors").unlink()
    state = {k: torch.from_numpy(v).to(torch.bfloat16) for k, v in tiny_weights().items()}
    torch.save(state, directory / "pytorch_model.bin")
    run(directory, tmp_path / "out.gguf", "--quantization-encoding", "q8_0")
    assert (tmp_path / "out.gguf").read_bytes() == converted[Encoding.Q8_0].read_bytes()


def test_pytorch_files_execute_nothing(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="reads a file that torch wrote")
    mark = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(mark),)

    directory = write_model(tmp_path / "hostile")
    (directory / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": Hostile()}, directory / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"is no PyTorch state dict of plain tensors"):
        run(directory, tmp_path / "out.gguf")
    assert not mark.exists()


def test_without_torch_a_pytorch_file_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    directory = write_model(tmp_path / "model")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"torch is not installed; type `pip install torch`"):
        run(directory, tmp_path / "out.gguf")


# What goes wrong


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_names_the_tensor_and_leaves_nothing(value: float, tmp_path: Path) -> None:
    tensors = tiny_weights()
    tensors["transformer.blocks.1.ffn.up_proj.weight"][7, 3] = value
    # Written by hand: our own encoder would refuse it.
    directory = write_model(tmp_path / "model")
    content = (directory / "model.safetensors").read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    offset = header_end + sum(
        2 * array.size
        for name, array in list(tensors.items())[: list(tensors).index("transformer.blocks.1.ffn.up_proj.weight")]
    )
    place = offset + 2 * (7 * 256 + 3)
    bits = np.array([value], np.float32).view(np.uint32) >> 16
    damaged = content[:place] + bits.astype(np.uint16).tobytes() + content[place + 2 :]
    (directory / "model.safetensors").write_bytes(damaged)
    out = tmp_path / "out"
    out.mkdir()
    name = "transformer.blocks.1.ffn.up_proj.weight"
    for encoding in ("bfloat16", "q4_k"):
        with pytest.raises(UserError, match=rf"^tensor '{name}' holds NaN or infinity"):
            run(directory, out / "model.gguf", "--quantization-encoding", encoding)
    assert only(out) == []


def test_existing_files_are_kept_without_force(source: Path, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("precious")
    with pytest.raises(UserError, match=r"model.gguf exists; give another name, or --force"):
        run(source, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_text() == "precious"
    run(source, tmp_path / "model.gguf", "--force")
    assert open_checkpoint(tmp_path / "model.gguf").format == "gguf"


def test_bad_destinations_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model.bin does not end in .gguf"):
        run(source, tmp_path / "model.bin")
    with pytest.raises(UserError, match=r"there is no directory .*/missing; create it"):
        run(source, tmp_path / "missing" / "model.gguf")
    with pytest.raises(UserError, match=r"there is no directory .*/missing; expected one"):
        run(source, tmp_path / "missing")


def test_unknown_sources_and_encodings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'no such.gguf' does not exist here; expected a file"):
        run("no such.gguf", tmp_path / "out.gguf")
    result = CliRunner().invoke(convert, ["a", "b", "--quantization-encoding", "q5_k"])
    assert result.exit_code == 2
    assert "'q5_k' is not one of 'float32', 'bfloat16', 'q8_0'" in result.stderr


def tensor(shape: tuple[int, ...], data: Any = None) -> Tensor:
    size = 4 * int(np.prod(shape))
    data = np.zeros(size, np.uint8) if data is None else data
    return Tensor("blk.0.ffn_up.weight", shape, Encoding.FLOAT32, data)


def test_rows_that_blocks_do_not_divide_are_refused(tmp_path: Path) -> None:
    message = (
        r"^tensor 'blk.0.ffn_up.weight' has rows of 96 values; q4_k needs a multiple of 256: "
        "choose float32, bfloat16, q8_0, q4_0$"
    )
    tensors = {"blk.0.ffn_up.weight": tensor((4, 96))}
    with pytest.raises(UserError, match=message):
        choose_encodings(tensors, Encoding.Q4_K)


def test_a_full_disk_is_known_before_anything_is_written(tmp_path: Path) -> None:
    rows = 1 << 40  # 4 TiB and more than any disk here, in a view of one byte
    huge = tensor((rows, 32), np.broadcast_to(np.uint8(0), (rows * 128,)))
    encodings = {huge.name: Encoding.FLOAT32}
    with pytest.raises(UserError, match=r"needs 140,737,488,355,328 bytes and [\d,]+ are free"):
        write_gguf(tmp_path / "x.gguf", "mpt", lambda w: None, {huge.name: huge}, encodings)
    assert only(tmp_path) == []


@pytest.fixture
def small_files() -> Iterator[None]:
    """Writes beyond 1 MiB fail, as on a disk that fills up meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_write_that_fails_leaves_nothing(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^cannot write .*model.gguf \(.*nothing was left behind"):
        run(source, tmp_path / "model.gguf", "--quantization-encoding", "float32")
    assert only(tmp_path) == []


def test_an_interrupt_leaves_the_old_file(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_text("precious")

    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    one = tensor((4, 64))
    with pytest.raises(KeyboardInterrupt):
        write_gguf(
            path,
            "mpt",
            lambda writer: None,
            {one.name: one},
            {one.name: Encoding.Q8_0},
            overwrite=True,
            report=interrupt,
        )
    assert path.read_text() == "precious"
    assert only(tmp_path) == ["model.gguf"]


def test_termination_leaves_nothing(tmp_path: Path) -> None:
    """A real process, stopped by SIGTERM while it writes."""
    directory = write_model(tmp_path / "model")
    out = tmp_path / "out"
    out.mkdir()
    code = (
        "import sys, time; import weights.convert as c; encode = c.encode_tensor\n"
        "def slow(*a):\n    time.sleep(0.2)\n    return encode(*a)\n"
        "c.encode_tensor = slow\n"
        "from pipelines.convert_command import convert; convert()"
    )
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", code, str(directory), str(out / "model.gguf")]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not only(out) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert only(out) != []
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert only(out) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps_rollup")
def test_pages_of_the_source_are_given_back(tmp_path: Path) -> None:
    path = tmp_path / "big.safetensors"
    array = np.ones((4096, 4096), np.float32)
    write_safetensors(path, {"x": array}, Encoding.FLOAT32)
    mapped = open_checkpoint(path).tensors["x"]
    encode_tensor(mapped, Encoding.Q4_0)  # once before, for what imports and threads take
    before = resident_file_bytes()
    encode_tensor(mapped, Encoding.Q4_0)
    assert resident_file_bytes() - before < 8 << 20


def resident_file_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssFile"))


# llama.cpp


@pytest.fixture(scope="module")
def llama_cpp() -> Any:
    return pytest.importorskip("llama_cpp", reason="loads the files in llama.cpp")


@pytest.mark.parametrize("encoding", TARGETS)
def test_llama_cpp_loads_what_we_write(llama_cpp: Any, converted: dict[Encoding, Path], encoding: Encoding) -> None:
    """Same tokens, and the logits of the decoder in numpy but for llama.cpp's roundings."""
    checkpoint = open_checkpoint(converted[encoding])
    llama = llama_cpp.Llama(str(converted[encoding]), n_ctx=64, logits_all=True, verbose=False)
    ids = load_tokenizer(checkpoint).encode(TEXT)
    assert llama.tokenize(TEXT.encode(), add_bos=False) == ids
    llama.eval(ids)
    theirs = np.array(llama.scores[: len(ids)])
    ours = reference.logits(from_checkpoint(checkpoint), numpy_weights(checkpoint), ids)
    for row, expected in zip(theirs, ours, strict=True):
        assert np.corrcoef(row, expected)[0, 1] > 0.999


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K_M", "Q5_K_M", "Q6_K"])
def test_we_load_what_llama_quantize_wrote(
    llama_cpp: Any, converted: dict[Encoding, Path], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"{kind}.gguf"
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    names = [str(p).encode() for p in (converted[Encoding.FLOAT32], path)]
    assert llama_cpp.llama_model_quantize(*names, options) == 0
    exact = numpy_weights(open_checkpoint(converted[Encoding.FLOAT32]))
    written = open_checkpoint(path)
    assert any(tensor.encoding.is_quantized for tensor in written.tensors.values())
    for name, array in numpy_weights(written).items():
        assert np.abs(array - exact[name]).max() <= 0.14 * np.abs(exact[name]).max(), name
    run(path, tmp_path / "float.gguf", "--quantization-encoding", "float32")
    for name, array in numpy_weights(open_checkpoint(tmp_path / "float.gguf")).items():
        np.testing.assert_array_equal(array, written.tensors[name].to_float32())
