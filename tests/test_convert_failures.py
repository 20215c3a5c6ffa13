"""Conversions that fail: one clear line, and nothing left behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_model import run_convert as run
from tiny_model import weights as tiny_weights
from tiny_model import write_model, write_safetensors

from pipelines.commands.convert import convert
from replit.decoder.encodings import choose_encodings
from weights.convert import encode_tensor, write_gguf
from weights.errors import UserError
from weights.files.checkpoint import open_checkpoint
from weights.tensor import Encoding, Tensor


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("hub") / "tiny-code-v1_5-1m")


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
    with pytest.raises(UserError, match="'a' does not exist here"):
        run("a", "b", "--quantization-encoding", "Q4_K")  # in capitals as everywhere
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
        "from pipelines.commands.convert import convert; convert()"
    )
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", code, str(directory), str(out / "model.gguf")]
    # MAX's Mojo modules set PYTHONEXECUTABLE behind os.environ's back, which a child without `env` would inherit.
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, env=dict(os.environ))
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
