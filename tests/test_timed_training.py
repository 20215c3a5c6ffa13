"""Training for minutes on a lent GPU: folded attention, rows made on the device, weights that travel, textbook data."""

from __future__ import annotations

import ast
import doctest
import importlib
import random
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

sys.path.insert(0, str(Path(__file__).parent.parent))  # training is not installed with the product

from training import contamination, fim, pack
from training.variants import TEXTBOOK, collection, document, variant, without_hints

DEFINITIONS = collection()


@pytest.mark.parametrize("module", sorted(path.stem for path in TEXTBOOK.glob("[!_]*.py")))
def test_the_textbook_does_what_its_examples_say(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"training.textbook.{module}"))
    assert found.attempted > 5
    assert found.failed == 0


def test_textbook_functions_of_files(tmp_path: Path) -> None:
    from training.textbook import files

    path, table, data = (str(tmp_path / name) for name in ("a.txt", "b.csv", "c.json"))
    files.write_file(path, "one\ntwo\n")
    files.append_to_file(path, "three ")
    files.append_line(path, "four")
    lines = ["one", "two", "three four"]
    assert files.read_lines(path) == files.read_lines__strip(path) == files.read_lines__split(path) == lines
    assert files.read_file(path) == files.read_text(path) == files.read_bytes(path).decode() == "\n".join(lines) + "\n"
    assert files.count_lines(path) == 3
    assert files.count_words_in_file(path) == 4
    assert files.head(path, 2) == lines[:2]
    assert files.tail(path, 1) == files.search_in_file(path, "four") == lines[2:]
    files.replace_in_file(path, "four", "five")
    files.write_lines(data, ["{}"])
    assert files.read_lines(path)[2] == "three five"
    files.write_csv(table, [{"a": "1", "b": "2"}])
    assert files.read_csv(table) == [{"a": "1", "b": "2"}]
    files.write_json(data, {"a": 1})
    assert files.read_json(data) == files.load_json(data) == files.load_config(data) == {"a": 1}
    files.save_json([2], data)
    assert files.read_json(data) == [2]
    assert (
        files.list_files__sorted(str(tmp_path))
        == sorted(files.list_files(str(tmp_path)))
        == ["a.txt", "b.csv", "c.json"]
    )
    assert files.find_files(str(tmp_path), ".csv") == [table]
    files.copy_file(path, path + "2")
    files.rename_file(path + "2", path + "3")
    assert files.file_hash(path) == files.file_hash(path + "3")
    assert files.delete_file(path + "3") is True
    assert files.delete_file(path + "3") is False
    files.ensure_dir(str(tmp_path / "d" / "e"))
    assert files.list_directories(str(tmp_path)) == ["d"]
    assert files.directory_size(str(tmp_path)) == sum(files.file_size(p) for p in (path, table, data))
    assert not files.is_older_than(path, 60)


def test_textbook_documents_run() -> None:
    """Each variant imports and defines what it uses: it runs by itself, and loses no definition's name."""
    rng = random.Random(0)
    for definition in rng.sample(DEFINITIONS, 150):
        scope: dict[str, object] = {"__name__": __name__}  # dataclasses look for their module
        text = variant(definition, rng)
        exec(compile(text, definition.name, "exec"), scope)
        assert "__" not in {name for name in scope if name[0] != "_"}, text


def test_the_textbook_leaves_out_what_a_benchmark_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "VARIANTS", 1)
    monkeypatch.setattr(pack, "collection", lambda: DEFINITIONS[:60])
    texts = [text for _, text in pack.textbook_documents([], {}, 0) if not text.startswith("<fim")]
    known = max(texts, key=lambda text: len(contamination.grams(text)))
    left = [text for _, text in pack.textbook_documents([], {"T/0": contamination.grams(known)}, 0)]
    assert known not in left
    assert 40 < len(left) < 60


def test_a_focus_repeats_some_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "VARIANTS", 9)
    monkeypatch.setattr(pack, "collection", lambda: [d for d in DEFINITIONS if d.name.split("__")[0] in ("gcd", "lcm")])
    ways = sum(d.name.startswith("gcd") for d in DEFINITIONS)
    others = sum(d.name.split("__")[0] == "lcm" for d in DEFINITIONS)
    assert len(pack.textbook_documents([], {}, 0, ["gcd"])) == 9 * ways + pack.FEW * others
    with pytest.raises(SystemExit, match="the textbook has no gdc"):
        pack.textbook_documents([], {}, 0, ["gdc"])


@pytest.mark.parametrize(
    "name", ["fibonacci", "is_prime", "merge_sort", "count_words", "generate_password", "heap_sort"]
)
def test_a_variant_computes_the_same(name: str) -> None:
    examples = {
        "fibonacci": lambda f: f(10) == 55,
        "is_prime": lambda f: [f(2), f(9)] == [True, False],
        "merge_sort": lambda f: f([3, 1, 2]) == [1, 2, 3],
        "count_words": lambda f: f("a b") == 2,
        "generate_password": lambda f: len(f(8)) == 8,
        "heap_sort": lambda f: f([3, 1, 2]) == [1, 2, 3],
    }
    rng, texts = random.Random(1), set()
    (definition,) = (d for d in DEFINITIONS if d.name == name)
    for _ in range(30):
        text = variant(definition, rng)
        scope: dict[str, object] = {}
        exec(text, scope)
        names = [n.name for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name != "sift_down"]
        assert examples[name](scope[names[0]]), text
        texts.add(text)
    assert len(texts) > 15


def test_hints_go_and_defaults_stay() -> None:
    source = 'def f(a: int, b: str = "x", *c: int) -> list[int]:\n    d: int = 1\n    return [a, d]'
    assert without_hints(source) == 'def f(a, b="x", *c):\n    d = 1\n    return [a, d]'
    rng = random.Random(0)
    assert all(ast.parse(document(DEFINITIONS, at, rng)) for at in range(0, len(DEFINITIONS), 5))


def test_gaps_are_where_cursors_stand() -> None:
    text = Path(fim.__file__).read_text()
    rng, inside, lines, to_the_end = random.Random(0), 0, 0, 0
    for _ in range(400):
        start, end = fim.split_points(text, rng)
        assert 0 <= start <= end <= len(text)
        inside += text[start - 1] == "(" and text[end : end + 1] == ")"
        lines += text[start - 1] == "\n" and text[end : end + 1] == "\n"
        to_the_end += end == len(text)
    assert inside > 20
    assert lines > 100
    assert to_the_end > 10


def test_folded_attention_is_attention_within_documents() -> None:
    torch = pytest.importorskip("torch", reason="training needs PyTorch")
    from training.attention import alibi_mask, alibi_slopes, attend, attend_folded, places

    torch.manual_seed(0)
    q, k, v = torch.randn(2, 1, 7, 300, 16), torch.randn(2, 1, 300, 16), torch.randn(2, 1, 300, 16)
    slopes = alibi_slopes(7, 8.0)
    documents = (torch.arange(300) >= 130).long().expand(2, -1)
    found = attend_folded(q, k, v, slopes, places(documents))
    for part in (slice(0, 130), slice(130, 300)):
        size = part.stop - part.start
        mask = alibi_mask(slopes, size)
        expected = attend(q[:, :, :, part], k[:, :, part], v[:, :, part], mask)
        torch.testing.assert_close(found[:, :, :, part], expected, atol=2e-4, rtol=1e-3)


def test_stacked_muon_is_muon() -> None:
    torch = pytest.importorskip("torch", reason="training needs PyTorch")
    from training.muon import StackedMuon

    torch.manual_seed(0)
    start = [torch.randn(24, 16), torch.randn(16, 40), torch.randn(24, 16)]
    ours, theirs = ([torch.nn.Parameter(p.clone()) for p in start] for _ in range(2))
    optimizers = (
        StackedMuon(ours, lr=0.1, weight_decay=0.5),
        torch.optim.Muon(theirs, lr=0.1, weight_decay=0.5, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for p in parameters:
                p.grad = torch.sin(3 * p.detach() + 1)
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=0.02, rtol=0.02)


def _shards(folder: Path) -> None:
    from training.packed import KINDS, write_shard

    rng = np.random.default_rng(0)
    kinds = [i % len(KINDS) for i in range(80)]
    documents = [np.append(rng.integers(1, 64, rng.integers(5, 60)), 0).astype(np.uint16) for _ in kinds]
    folder.mkdir()
    write_shard(folder / "a.xz", documents[:50], kinds[:50])
    write_shard(folder / "b.xz", documents[50:], kinds[50:])
    vocab = {f"{'Ċ' if i % 8 == 0 else ''}{i}": i for i in range(64)}
    Tokenizer(WordLevel(vocab, "1")).save(str(folder / "tokenizer.json"))


def test_shards_give_back_their_documents(tmp_path: Path) -> None:
    from training.packed import read_shards, write_shard

    documents = [np.array(d, np.uint16) for d in ([5, 0], [6, 7, 0], [40000, 0], [8, 0])]
    write_shard(tmp_path / "a.xz", documents[:2], [0, 3])
    write_shard(tmp_path / "b.xz", documents[2:], [3, 1])
    found = read_shards([tmp_path / "a.xz", tmp_path / "b.xz"])
    assert {name: (ids.tolist(), starts.tolist()) for name, (ids, starts) in found.items()} == {
        "files": ([5, 0], [0]),
        "fim": ([8, 0], [0]),
        "textbook": ([6, 7, 0, 40000, 0], [0, 3]),
    }
    with pytest.raises(FileNotFoundError, match="no shards"):
        read_shards([])


def test_rows_loop_repeat_and_count_documents(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs PyTorch")
    from training.packed import read_shards
    from training.rows import Rows

    _shards(tmp_path / "data")
    arrays = read_shards(sorted((tmp_path / "data").glob("*.xz")))
    counts = {"files": 2, "textbook": 3, "loops": 20, "repeats": 20}
    starts_line = np.arange(64) % 8 == 0
    rows = Rows(arrays, counts, 100, starts_line, 0, "cpu")
    ids, targets, earlier, documents = rows.batch()
    assert ids.shape == targets.shape == earlier.shape == documents.shape == (45, 100)
    assert torch.equal(ids[:, 1:], targets[:, :-1])
    starts = {tuple(arrays["textbook"][0][s : s + 20].tolist()) for s in arrays["textbook"][1]}
    assert {tuple(row[:20].tolist()) for row in ids[2:5]} <= starts | {tuple(arrays["textbook"][0][-101:-81].tolist())}
    ends = (ids == 0).long().cumsum(1)
    assert ((documents == ends) | (documents == ends - (ids == 0).long())).all()
    at, before = (earlier >= 0).nonzero(as_tuple=True), earlier[earlier >= 0]
    assert len(before) > 50
    assert (at[0] >= 5).all()
    assert torch.equal(targets[at], targets[at[0], before])
    copied = sum(_longest_copy(row.tolist()) >= 6 for row in targets[25:])
    assert copied >= 15
    again = Rows(arrays, counts, 100, starts_line, 0, "cpu").batch()
    assert all(torch.equal(a, b) for a, b in zip(again, (ids, targets, earlier, documents), strict=True))
    with pytest.raises(ValueError, match="no documents of fim"):
        Rows({"files": arrays["files"]}, {"fim": 1}, 100, starts_line, 0, "cpu")


def _longest_copy(row: list[int]) -> int:
    """Length of the longest piece that stands twice in a row without overlap."""
    best = 0
    for i in range(len(row)):
        for j in range(i + 1, len(row)):
            n = 0
            while j + n < len(row) and i + n < j and row[i + n] == row[j + n]:
                n += 1
            best = max(best, n)
    return best


def test_weights_travel_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="training needs PyTorch")
    from training import flat_weights
    from training.model import ModelConfig, Nano

    monkeypatch.setattr(flat_weights, "PART_BYTES", 1000)
    model = Nano(ModelConfig(vocab_size=64, d_model=16, n_layers=1, n_heads=2, n_kv_heads=1))
    flat_weights.save(tmp_path, model.config, list(model.parameters()), {"step": 3})
    assert len(list(tmp_path.glob("weights-*.npy"))) > 3
    for a, b in zip(model.parameters(), flat_weights.load(tmp_path).parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)
    np.save(tmp_path / "weights-0.npy", np.zeros(3, np.float16))
    with pytest.raises(ValueError, match="copy all its parts again"):
        flat_weights.load(tmp_path)


def test_the_rate_follows_the_clock() -> None:
    pytest.importorskip("torch", reason="training needs PyTorch")
    from training.train_timed import TimedConfig, rate_factor

    c = TimedConfig(warmup=10, hold=0.5)
    assert rate_factor(4, 0.0, c) == 0.5
    assert rate_factor(100, 0.5, c) == 1
    assert rate_factor(100, 0.75, c) == pytest.approx(0.5)
    falling = [rate_factor(100, s / 100, c) for s in range(50, 101)]
    assert all(a > b for a, b in pairwise(falling))
    assert falling[-1] == 0


def test_a_timed_run_learns_and_its_weights_start_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="training needs PyTorch")
    from training import flat_weights, train_timed
    from training.model import ModelConfig, Nano

    data, out = tmp_path / "data", tmp_path / "out"
    _shards(data)
    rows = np.random.default_rng(1).integers(1, 64, (3, 33)).astype(np.uint16)
    np.save(data / "heldout.npy", rows)
    shape = ModelConfig(vocab_size=64, d_model=32, n_layers=1, n_heads=2, n_kv_heads=1)
    c = train_timed.TimedConfig(minutes=1, seq_len=32, warmup=5, compile=False)
    torch.manual_seed(0)
    trainer = train_timed.build(Nano(shape), c, data, "cpu")
    first = float(trainer.train_step(0.0))
    last = [float(trainer.train_step(0.1)) for _ in range(40)][-1]
    assert last < first - 0.05
    out.mkdir()
    train_timed.train(trainer, train_timed.Clock(1e-9), torch.from_numpy(rows.astype(np.int64)), out)
    again = train_timed.build(flat_weights.load(out), c, data, "cpu")
    assert float(again.train_step(0.0)) < first - 0.05
    for a, b in zip(trainer.average, again.parameters, strict=True):
        assert (a - b).abs().max() < 0.05
