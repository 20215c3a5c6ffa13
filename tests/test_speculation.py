"""Speculation changes nothing but speed: the same bytes, log-probabilities and ends, alone and among others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from tiny_model import write_model

from pipelines.drafting import open_drafter
from pipelines.engine.draft_model import DraftModel, same_vocabulary
from pipelines.engine.drafter import Drafter
from pipelines.engine.sampling import SamplingParams
from pipelines.engine.sequence import Sequence, SequenceRequest
from pipelines.pipeline import Completion, Pipeline, load
from pipelines.registry import open_model
from pipelines.terminal.progress import Quiet
from weights.errors import UserError

if TYPE_CHECKING:
    from running_server import RunningServer

CODE = (
    "import os\n\n\ndef read_lines(path):\n    with open(path) as file:\n        return file.read().splitlines()\n\n\n"
    "def write_lines(path, lines):\n    with open(path, 'w') as file:\n        file.write('\\n'.join(lines))\n\n\n"
)
PROMPTS = [
    CODE,
    CODE + "def read_lines(path):\n",
    "class Stack:\n    def push(self, item):\n        self.items.append(item)\n\n    def pop(self",
    "x = [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2,",
    "é漢🙂 = '",
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"top_k": 8, "temperature": 0.7, "seed": 5},
    {"top_k": 0, "top_p": 0.9, "seed": 6, "repetition_penalty": 1.2},
    {"stop": "\n\n", "completion": "block"},
    {"logprobs": 2, "seed": 7, "top_k": 4},
    {"ignore_eos": True, "frequency_penalty": 0.5},
]


@pytest.fixture(scope="module")
def plain() -> Pipeline:
    return load("nano", max_length=1024, max_batch_size=4, draft=None)


@pytest.fixture(scope="module", params=["ngram", "nano"])
def guessing(request: pytest.FixtureRequest) -> Pipeline:
    """nano with guesses; as its own draft it is nearly always right."""
    return load("nano", max_length=1024, max_batch_size=4, draft=request.param)


def everything(completion: Completion) -> tuple[object, ...]:
    return completion.text, completion.token_ids, completion.finish_reason, completion.logprobs


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_texts_are_the_same(plain: Pipeline, guessing: Pipeline, options: dict[str, Any]) -> None:
    expected = plain.generate_batch(PROMPTS, max_new_tokens=60, **options)
    assert guessing.drafter is not None
    before = guessing.drafter.guessed
    together = guessing.generate_batch(PROMPTS, max_new_tokens=60, **options)
    assert list(map(everything, together)) == list(map(everything, expected))
    if "seed" not in options:
        alone = [guessing.generate(prompt, max_new_tokens=60, **options) for prompt in PROMPTS]
        assert [done.token_ids for done in alone] == [done.token_ids for done in expected]
    assert guessing.drafter.guessed > before


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_limits_hold(plain: Pipeline, guessing: Pipeline, limit: int) -> None:
    for prompt in PROMPTS:
        done = guessing.generate(prompt, max_new_tokens=limit, ignore_eos=True)
        assert everything(done) == everything(plain.generate(prompt, max_new_tokens=limit, ignore_eos=True))
        assert len(done.token_ids) == limit


def test_the_end_of_the_sequence(plain: Pipeline, guessing: Pipeline) -> None:
    prompt = plain.tokenizer.encode(CODE * 30)[:1000]
    done = guessing.generate(prompt, ignore_eos=True)
    assert everything(done) == everything(plain.generate(prompt, ignore_eos=True))
    assert len(done.token_ids) == 24


def test_a_draft_of_another_vocabulary(tmp_path: Path) -> None:
    """nano guesses for a model with a tokenizer of its own: never right there, and the text is the same."""
    path = write_model(tmp_path)
    alone, guessed = load(str(path), draft="none"), load(str(path), draft="nano")
    assert guessed.drafter is not None
    for prompt in ("import os\n\ndef f(x):\n    return", "é漢 = '", "\tif x:\n"):
        for options in ({}, {"top_k": 4, "seed": 1}):
            expected = alone.generate(prompt, max_new_tokens=24, ignore_eos=True, **options)
            done = guessed.generate(prompt, max_new_tokens=24, ignore_eos=True, **options)
            assert everything(done) == everything(expected)
    assert guessed.drafter.guessed > 0


def test_guesses_in_another_vocabulary_end_where_the_sequence_must(tmp_path: Path) -> None:
    """One token of the small model may be several of the large one."""
    path = str(write_model(tmp_path))
    alone, guessed = (load(path, max_length=128, max_batch_size=3, draft=draft) for draft in ("none", "nano"))
    text = "def f(x):\n    return x\n" * 20
    for length in (118, 122, 126):
        prompts = [alone.tokenizer.encode(text)[:length], "def g(x):\n    return x\n", "class A:\n"]
        done = guessed.generate_batch(prompts, ignore_eos=True)
        assert list(map(everything, done)) == list(map(everything, alone.generate_batch(prompts, ignore_eos=True)))
    with pytest.raises(ValueError, match="slots hold 128 positions"):
        alone.model.extend([0], [list(range(129))], [0])


def test_guesses_in_another_vocabulary_spell_the_same_text(tmp_path: Path, plain: Pipeline) -> None:
    target = open_model(str(write_model(tmp_path)), None, None).tokenizer
    assert not same_vocabulary(plain.tokenizer, target)
    assert same_vocabulary(plain.tokenizer, plain.tokenizer)
    draft = DraftModel(plain.model, plain.tokenizer, target)
    for before, after in [
        ("import nu", "mpy as np\n"),
        ("    retu", "rn x"),
        ("x = ", "1"),
        ("é", "漢 = 2"),
        ("", "def f"),
    ]:
        assert target.decode(draft._after_seam(before, after)) == after


def test_ids_that_a_small_model_has_no_row_for(plain: Pipeline) -> None:
    """A large vocabulary may have more, and its padding any: the small model reads what follows them."""
    draft = DraftModel(load("nano", max_length=1024, max_batch_size=4).model, plain.tokenizer, plain.tokenizer)
    assert draft.same_vocabulary
    known = plain.tokenizer.encode(CODE)

    def guess(name: str, ids: list[int]) -> tuple[list[int], list[float]]:
        request = SequenceRequest(name, ids, SamplingParams(max_new_tokens=20), (0,))
        return draft.guess(Sequence(request, plain.tokenizer, plain.max_length), 5, lambda share: True)

    beyond = plain.config.vocab_size
    assert guess("a", [*known, beyond, beyond + 9000, *known]) == guess("b", known)
    assert guess("c", [*known, beyond]) == ([], [])


@pytest.mark.parametrize("length", [96, 512])
def test_a_small_model_of_short_sequences_reads_a_text_once(plain: Pipeline, length: int) -> None:
    """Not the same hundreds of tokens before each guess, and never more than it holds."""
    model = load("nano", max_length=length).model
    draft = DraftModel(model, plain.tokenizer, plain.tokenizer)
    prompt = (plain.tokenizer.encode(CODE) * 30)[:900]
    sequence = Sequence(SequenceRequest("a", prompt, SamplingParams(), (0,)), plain.tokenizer, plain.max_length)
    usual, read, guessed = model.extend, 0, 0

    def counted(slots: Any, ids: Any, rows: Any) -> Any:
        nonlocal read
        read += sum(map(len, ids))
        return usual(slots, ids, rows)

    model.extend = counted  # type: ignore[method-assign]
    for token in plain.tokenizer.encode(CODE)[:60]:
        guessed += len(draft.guess(sequence, 3, lambda share: True)[0])
        sequence.ids.append(token)
    assert guessed > 60
    assert read < length + 60 * 4


def test_sequences_that_the_small_model_does_not_follow_say_nothing_of_its_time(plain: Pipeline) -> None:
    class Busy:
        """Follows one sequence, in 2 ms a token."""

        def guess(self, sequence: Sequence, most: int, worth: Callable[[float], bool]) -> tuple[list[int], list[float]]:
            if sequence.request.id != "0" or not worth(0.9):
                return [], []
            time.sleep(0.002)
            return [5], [0.9]

    drafter = Drafter(ngrams=False, small=cast(DraftModel, Busy()))
    wanted = [SequenceRequest(str(i), [1], SamplingParams(), (0,)) for i in range(3)]
    sequences = [Sequence(request, plain.tokenizer, plain.max_length) for request in wanted]
    for _ in range(20):
        guesses = drafter.guess(sequences)
        drafter.passed(3 + sum(map(len, guesses)), 0.1)
        for sequence, guessed in zip(sequences, guesses, strict=True):
            sequence.ids.append(5)
            if guessed:
                drafter.accepted(sequence, len(guessed), 1)
    assert drafter._small_costs.seconds(1) >= 0.002


def test_a_small_model_that_fails_is_left_alone(plain: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    guessing = load("nano", max_length=1024, max_batch_size=4, draft="nano")
    assert guessing.drafter is not None

    def failing(*_: object) -> None:
        raise ValueError("no such row")

    monkeypatch.setattr(DraftModel, "_read", failing)
    expected = plain.generate_batch(PROMPTS, max_new_tokens=40)
    assert list(map(everything, guessing.generate_batch(PROMPTS, max_new_tokens=40))) == list(map(everything, expected))
    assert guessing.drafter._small is None


def test_who_guesses(plain: Pipeline) -> None:
    files = open_model("nano", None, None)
    size = plain.weight_bytes

    def chosen(name: str, size: int = size, on_gpu: bool = False) -> Any:
        return open_drafter(name, files, size, 1, on_gpu, Quiet())

    assert chosen("none") is None
    assert chosen("auto", on_gpu=True) is None  # kernels there round one row and several otherwise
    small = chosen("auto")
    assert small is not None
    assert small._small is None  # nano does not guess for a model about its own size
    assert chosen("auto", 100 * size)._small is not None
    assert chosen("ngram", 100 * size)._small is None
    with pytest.raises(UserError, match=r"^--draft '/nowhere.gguf' does not exist"):
        chosen("/nowhere.gguf")


@pytest.fixture(scope="module", params=["ngram", "nano"])
def drafting_server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    if any(find_spec(name) is None for name in ("fastapi", "zmq", "httptools")):
        pytest.skip("needs the extra serve")
    from running_server import RunningServer

    with RunningServer("--max-length", "1024", "--draft", request.param) as running:
        yield running.wait_ready()


def test_the_server_says_the_same_with_and_without(drafting_server: RunningServer, plain: Pipeline) -> None:
    bodies = [
        {"prompt": prompt, "max_tokens": 40, "temperature": temperature, "seed": 3, "logprobs": logprobs}
        for prompt in PROMPTS
        for temperature in (0, 0.7)
        for logprobs in (None, 2)
    ]

    def choice(body: dict[str, Any]) -> Any:
        return drafting_server.post("/v1/completions", body).json()["choices"]

    expected = [choice(body | {"speculative": False}) for body in bodies]
    assert expected[0][0]["text"] == plain.generate(PROMPTS[0], max_new_tokens=40).text
    assert [choice(body) for body in bodies] == expected
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(choice, bodies)) == expected


def test_the_server_tells_what_was_guessed(drafting_server: RunningServer) -> None:
    body = {"prompt": PROMPTS[1], "n_predict": 40, "temperature": 0}
    timings = drafting_server.post("/completion", body).json()["timings"]
    assert 0 < timings["draft_n_accepted"] <= timings["draft_n"]
    assert "draft_n" not in drafting_server.post("/completion", body | {"speculative": False}).json()["timings"]
    metrics = drafting_server.get("/metrics").text
    assert "replit_draft_tokens_accepted_total" in metrics
