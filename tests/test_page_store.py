"""The prefix cache over a restart: what is found is what was stored, whole, and nobody else's."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from running_server import RunningServer

from pipelines.server.process.page_store import ROOT, PageStore, digest_of, weights_digest
from weights.errors import UserError
from weights.tensor import Encoding, Tensor

PAGE = 640


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def data(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, PAGE, np.uint8)


def open_store(path: Path, key: str = "k" * 32, limit: int = 1 << 20) -> PageStore:
    return PageStore(path, key, PAGE, limit)


def test_the_next_start_finds_pages_by_what_is_before_them(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write(ROOT, ids(1, 2, 3), data(0))
    store.write(digest_of(ROOT, ids(1, 2, 3)), ids(4, 5), data(1))
    again = open_store(tmp_path)
    (page,) = again.candidates(digest_of(ROOT, ids(1, 2, 3)))
    assert page.ids.tolist() == [4, 5]
    np.testing.assert_array_equal(again.read(page), data(1))
    assert not list(again.candidates(digest_of(ROOT, ids(1, 2, 4))))
    assert not list(open_store(tmp_path, "other" * 8).candidates(ROOT))


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path / "cache")
    store.write(ROOT, ids(1), data(0))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cache").rglob("*")}
    assert set(modes.values()) == {0o600, 0o700}


def test_a_longer_page_takes_the_place_of_its_beginning(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for count in (1, 2, 3):
        store.write(ROOT, ids(*range(count)), data(count))
    assert (len(store), len(open_store(tmp_path))) == (1, 1)
    store.write(ROOT, ids(0, 1), data(9))
    (page,) = store.candidates(ROOT)
    assert page.ids.tolist() == [0, 1, 2]
    store.write(ROOT, ids(7), data(7))  # goes on otherwise: both stay
    assert len(open_store(tmp_path)) == 2


def test_what_cannot_be_removed_is_not_used(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write(ROOT, ids(1, 2), data(0))
    (page,) = store.candidates(ROOT)
    page.path.unlink()
    page.path.mkdir()  # not even its owner removes that like a file
    assert (store.read(page), list(store.candidates(ROOT))) == (None, [])


@pytest.mark.parametrize("place", [0, 10, 45, 60, -1])
def test_a_damaged_file_is_not_used(tmp_path: Path, place: int) -> None:
    open_store(tmp_path).write(ROOT, ids(1, 2), data(0))
    (path,) = tmp_path.rglob("*.page")
    body = bytearray(path.read_bytes())
    body[place] ^= 1
    path.write_bytes(body)
    store = open_store(tmp_path)
    assert [store.read(page) for page in store.candidates(ROOT)] in ([], [None])


def test_what_was_half_written_is_left_aside(tmp_path: Path) -> None:
    open_store(tmp_path).write(ROOT, ids(1, 2), data(0))
    (path,) = tmp_path.rglob("*.page")
    path.write_bytes(path.read_bytes()[:-5])
    left, young = path.parent / "tmpabc.part", path.parent / "tmpdef.part"  # the young one is another server's
    left.write_bytes(b"x")
    young.write_bytes(b"x")
    os.utime(left, (0, 0))
    assert len(open_store(tmp_path)) == 0
    assert list(tmp_path.rglob("*.part")) == [young]


def test_what_was_not_used_longest_goes_first(tmp_path: Path) -> None:
    store = open_store(tmp_path, limit=3 * (PAGE + 100))
    for number in range(3):
        store.write(ROOT, ids(number), data(number))
        time.sleep(0.02)
    (oldest,) = (page for page in store.candidates(ROOT) if page.ids[0] == 0)
    assert store.read(oldest) is not None
    time.sleep(0.02)
    store.write(ROOT, ids(3), data(3))
    assert sorted(int(page.ids[0]) for page in open_store(tmp_path).candidates(ROOT)) == [0, 2, 3]


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use --cache-dir"):
        open_store(tmp_path / "file")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", denied)
    with pytest.raises(UserError, match="cannot use --cache-dir .*: Permission denied"):
        open_store(tmp_path)


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    store = open_store(tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    store.write(ROOT, ids(1), data(0))
    assert len(open_store(tmp_path / "cache")) == 1


def test_a_size_without_room_for_a_page_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = open_store(tmp_path, limit=100)
    store.write(ROOT, ids(1), data(0))
    store.write(ROOT, ids(2), data(0))
    assert capfd.readouterr().err.splitlines() == [
        f"cannot store in --cache-dir {tmp_path}: --cache-dir-size is 100 bytes, and a page takes 712"
    ]


def test_what_cannot_be_told_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error is often a file, on the disk that is full."""
    store = open_store(tmp_path, limit=100)
    monkeypatch.setattr("sys.stderr", Mock(write=Mock(side_effect=OSError(28, "No space left on device"))))
    store.write(ROOT, ids(1), data(0))
    assert len(store) == 0


def test_other_weights_have_another_digest() -> None:
    values = np.arange(5000, dtype=np.float32)
    tensor = Tensor("x", (5000,), Encoding.FLOAT32, values.view(np.uint8))
    changed = values.copy()
    changed[-1] += 1
    other = Tensor("x", (5000,), Encoding.FLOAT32, changed.view(np.uint8))
    assert weights_digest({"x": tensor}) == weights_digest({"x": tensor})
    assert weights_digest({"y": tensor}) != weights_digest({"x": tensor})
    assert weights_digest({"x": other}) != weights_digest({"x": tensor})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_finds_what_it_read_before(tmp_path: Path, number: signal.Signals) -> None:
    prompt = "# kept\n" + "def f(x):\n    return x + 1\n\n" * 60
    body = {"prompt": prompt, "n_predict": 16, "temperature": 0}
    options = ("--max-length", "1024", "--cache-dir", str(tmp_path / "cache"), "--cache-dir-size", "100000000")
    with RunningServer(*options) as server:
        first = server.wait_ready().post("/completion", body).json()
        if number == signal.SIGKILL:
            deadline = time.monotonic() + 5
            while len(list(tmp_path.rglob("*.page"))) < first["tokens_evaluated"] // 128:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        server.stop(number)
    with RunningServer(*options) as server:
        again = server.wait_ready().post("/completion", body).json()
    assert again["content"] == first["content"]
    assert again["tokens_cached"] == first["tokens_evaluated"] - 1


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    store.write(ROOT, ids(1), data(0))
    assert (len(store), list(tmp_path.rglob("*.part"))) == (0, [])
