"""What one sequence promises wherever it runs: ends, stop strings, failures of its own, and several at a time.

On a model whose output is a script (scripted_model.py), through Python here and through the server below.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scripted_model import write_scripted

from pipelines.engine.sampling import log_softmax
from pipelines.engine.slots import Slots
from pipelines.pipeline import Pipeline, load
from weights.errors import UserError

if TYPE_CHECKING:
    from running_server import RunningServer


@pytest.fixture(scope="session")
def scripted_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scripted(tmp_path_factory.mktemp("scripted") / "scripted.gguf")


@pytest.fixture(scope="session")
def scripted(scripted_path: Path) -> Pipeline:
    return load(str(scripted_path), max_batch_size=3)


@pytest.mark.parametrize(
    ("prompt", "options", "text", "reason"),
    [
        ("xB", {}, "😀!", "stop"),
        ("xE", {}, "end \ufffd", "stop"),
        ("xC", {}, "foo", "stop"),  # <fim_pad> ends a text, as in llama.cpp
        ("xD", {}, "baz", "stop"),  # and so does any other control token
        ("xC", {"ignore_eos": True, "max_new_tokens": 3}, "foobar", "length"),
        ("xC", {"ignore_eos": True, "max_new_tokens": 5, "stop": "<|endoftext|>"}, "foobar", "stop"),
        ("xC", {"ignore_eos": True, "max_new_tokens": 5, "stop": "<fim_pad>"}, "foo", "stop"),
        ("xL", {"stop": "<|endoftext|>"}, "abc", "stop"),
        ("xG", {"stop": "STOP"}, "ab", "stop"),
        ("xF", {"stop": "STOP"}, "foooST", "stop"),
        ("xA", {"strip": True}, "\n \x0c x = 1\n  y", "stop"),
        ("xN", {"max_new_tokens": 3}, "n1n2n3", "length"),
        ("xN", {"top_k": 0, "temperature": 1e-40, "min_p": 0.05}, "n1n2n3n4n5n6n7n8", "stop"),
        ("xN", {"top_k": -1, "temperature": 1e-40}, "n1n2n3n4n5n6n7n8", "stop"),
        ("xN", {"repetition_penalty": 1e-300, "max_new_tokens": 1}, "n1", "length"),
    ],
)
def test_ends(scripted: Pipeline, prompt: str, options: dict[str, Any], text: str, reason: str) -> None:
    done = scripted.generate(prompt, **options)
    assert (done.text, done.finish_reason) == (text, reason)


def test_a_failing_sequence_fails_alone(scripted: Pipeline) -> None:
    expected = scripted.generate("xN").text
    good, bad, late = scripted.generate_batch(["xN", "xM", "xN"])
    assert (good.text, late.text) == (expected, expected)
    assert (bad.text, bad.finish_reason) == ("beforeNAN", "failed")
    assert bad.error is not None
    assert bad.error.startswith("after 4 tokens, the highest logit is nan; expected a finite number")
    for options in ({}, {"top_k": 40}, {"top_k": 0, "temperature": 0.7}, {"logprobs": 3}):
        with pytest.raises(UserError, match="the highest logit is nan"):
            scripted.generate("xM", **options)


def test_streams_in_turns_and_threads_are_each_right(scripted: Pipeline) -> None:
    alone = {letter: scripted.generate("x" + letter).text for letter in "BFGHJN"}
    first, second = scripted.stream("xN"), scripted.stream("xJ")
    pieces: list[str] = ["", ""]
    for turn in zip_longest(first, second):
        pieces = [text + (piece.text if piece else "") for text, piece in zip(pieces, turn, strict=True)]
    assert pieces == [alone["N"], alone["J"]]
    with ThreadPoolExecutor(3) as pool:
        letters = "BFGHJN" * 5
        texts = list(pool.map(lambda letter: scripted.generate("x" + letter).text, letters))
    assert texts == [alone[letter] for letter in letters]


def test_too_many_open_streams_are_one_clear_error(scripted: Pipeline) -> None:
    streams = [scripted.stream("xN") for _ in range(3)]
    for stream in streams:
        next(stream)
    with pytest.raises(UserError, match="all 3 sequences of this model are in use"):
        scripted.generate("xN")
    streams[0].close()  # type: ignore[attr-defined]
    assert scripted.generate("xF").text == "foooST"
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]


def _generate(pipeline: Pipeline, found: Any) -> None:
    try:
        found.put(pipeline.generate("xN").text)
    except UserError as error:
        found.put(str(error))


def _load(_: Pipeline, found: Any) -> None:
    try:
        load("nano")
    except UserError as error:
        found.put(str(error))


@pytest.mark.filterwarnings("ignore:This process")  # Python's own warning about forks and threads
@pytest.mark.parametrize(
    ("target", "message"),
    [(_generate, "the model was loaded in another process"), (_load, "the engine was started in another process")],
)
def test_a_fork_is_an_error_and_does_not_hang(scripted: Pipeline, target: Any, message: str) -> None:
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    process = context.Process(target=target, args=(scripted, found))
    process.start()
    told = found.get(timeout=30)
    assert told.startswith(message)
    assert "load only after the fork" in told or "load models only after the fork" in told
    process.join(30)
    assert process.exitcode == 0


def test_an_event_loop_goes_on_beside_a_stream(scripted: Pipeline) -> None:
    async def both() -> tuple[str, str]:
        async def one(prompt: str) -> str:
            return "".join([piece.text async for piece in scripted.astream(prompt)])

        first, second = await asyncio.gather(one("xN"), one("xH"))
        return first, second

    assert asyncio.run(both()) == ("n1n2n3n4n5n6n7n8", "\rx2yy\r\nzzz")


def test_a_cancelled_stream_of_an_event_loop_frees_its_place(scripted: Pipeline) -> None:
    async def cancelled() -> None:
        async def endless() -> None:
            async for _ in scripted.astream("xN" * 40, ignore_eos=True):
                pass

        for seconds in (0.0, 0.001, 0.004, 0.01):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(endless(), seconds)
            assert all(user is None for user in scripted.slots._users)
        task = asyncio.ensure_future(endless())
        await asyncio.sleep(0.004)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())

    async def left_behind() -> None:  # the event loop ends while a pass runs
        task = asyncio.ensure_future(anext(scripted.astream("xN" * 40)))
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(left_behind())
    assert all(user is None for user in scripted.slots._users)
    assert scripted.generate("xF").text == "foooST"


@pytest.mark.parametrize("place", ["_hold", "_extend", "_keep", "settle", "take", "next_part", "advance"])
@pytest.mark.parametrize("late", [False, True])
def test_an_interrupt_anywhere_leaves_the_next_text_right(
    scripted: Pipeline, monkeypatch: pytest.MonkeyPatch, place: str, late: bool
) -> None:
    prompts = ["x" * 5 + "N", "x" * 9 + "J", "x" * 5 + "H"]
    expected = [scripted.generate(prompt).text for prompt in prompts]
    usual = getattr(Slots, place)
    for count in range(1, 6):
        calls = 0

        def interrupted(*arguments: Any, count: int = count, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == count and not late:
                raise KeyboardInterrupt
            done = usual(*arguments, **keywords)
            if calls == count:
                raise KeyboardInterrupt
            return done

        with monkeypatch.context() as patch:
            patch.setattr(Slots, place, interrupted)
            with suppress(KeyboardInterrupt):
                scripted.generate_batch(prompts)
        assert all(user is None for user in scripted.slots._users)
        assert [scripted.generate(prompt).text for prompt in prompts] == expected


def test_texts_without_a_seed_leave_others_random_numbers_alone(scripted: Pipeline) -> None:
    np.random.seed(0)
    first = np.random.rand()
    np.random.seed(0)
    scripted.generate("xN", top_k=0, max_new_tokens=1)  # of more than one token, one would make NaN now and then
    assert np.random.rand() == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"foo": 1}, "'foo' is no keyword of a completion; expected some of max_new_tokens"),
        ({"stop": 5}, "stop is 5; expected a text or a list of texts"),
        ({"stop": b""}, "stop is b''; expected a text or a list of texts"),
        ({"stop": ""}, "--stop is an empty string; expected text to stop at"),
        ({"stop": ["a", 5]}, "expected a text or a list of texts"),
        ({"logit_bias": [5]}, "logit_bias is [5]; expected a number for each of some token ids, such as {50: -1.5}"),
        ({"logit_bias": range(2)}, "expected a number for each of some token ids, such as {50: -1.5}"),
        ({"logit_bias": {10**6: 1}}, "token id 1000000 is not in the vocabulary"),
        ({"ignore_eos": "no"}, "--ignore-eos is 'no'; expected True or False"),
        ({"order": 5}, "the order of the filters is 5; expected a list of some of penalties"),
        ({"logit_bias": {"5": 1}}, "--logit-bias is '5'; expected a whole number from 0 up"),
        ({"logprobs": "5"}, "--logprobs is '5'; expected a whole number from 0 up"),
        ({"logprobs": -1}, "--logprobs is -1; expected a whole number from 0 up"),
        ({"max_new_tokens": "3"}, "--max-new-tokens is '3'; expected a whole number from -1 up"),
        ({"temperature": "0"}, "--temperature is '0'; expected a number from 0"),
    ],
    ids=str,
)
def test_keywords_that_cannot_be_used(scripted: Pipeline, options: dict[str, Any], message: str) -> None:
    for complete in (scripted.generate, lambda text, **more: scripted.fill(text, "", **more)):
        with pytest.raises(UserError) as error:
            complete("xN", **options)
        assert message in str(error.value)


def test_numbers_of_numpy_and_paths_are_taken(scripted: Pipeline, scripted_path: Path) -> None:
    done = load(scripted_path).generate(
        "xN", max_new_tokens=np.int64(3), temperature=np.float32(0.5), top_k=np.int32(1)
    )
    assert done.text == "n1n2n3"
    first = done.token_ids[0]
    for ban in ({first: -math.inf}, [[np.int64(first), -math.inf]]):  # as OpenAI writes it, and as pairs
        assert scripted.generate("xN", max_new_tokens=1, logit_bias=ban).token_ids[:1] != [first]
    with pytest.raises(UserError, match="--drafted-sequences is -1; expected a whole number from 1 up"):
        load(scripted_path, drafted_sequences=-1)


def test_several_models_in_one_process(scripted: Pipeline, nano: Pipeline) -> None:
    before = nano.generate("def f(", max_new_tokens=8).text
    assert scripted.generate("xF").text == "foooST"
    assert nano.generate("def f(", max_new_tokens=8).text == before


def test_log_probabilities_in_python(nano: Pipeline) -> None:
    done = nano.generate("def fibonacci(n):", max_new_tokens=6, logprobs=2)
    ids = nano.encode("def fibonacci(n):") + done.token_ids
    rows = log_softmax(nano.logits(ids))
    assert [scored.token for scored in done.logprobs] == done.token_ids
    for position, scored in enumerate(done.logprobs, len(ids) - len(done.token_ids)):
        assert scored.logprob == pytest.approx(rows[position - 1][scored.token], abs=1e-5)
        assert scored.top[0][0] == int(np.argmax(rows[position - 1]))
        assert len(scored.top) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.generate(b"abc"), "the prompt is of the type bytes; expected a text or a list of token ids"),
        (lambda p: p.generate([1.5]), "the prompt holds 1.5; expected token ids"),
        (lambda p: p.generate([True]), "the prompt holds True; expected token ids"),
        (lambda p: p.generate(np.array([[1, 2]])), "the prompt holds array.* expected token ids"),
        (lambda p: p.generate(np.array(7)), "the prompt is of the type ndarray; expected a text or a list"),
        (lambda p: p.generate(memoryview(b"abc")), "the prompt is of the type memoryview"),
        (lambda p: p.fill("a", "b", language=5), "the language is 5; expected a file's name or ending such as x.py"),
        (lambda p: p.generate(7), "the prompt is of the type int; expected a text or a list of token ids"),
        (lambda p: p.generate(None), "the prompt is of the type NoneType"),
        (lambda p: p.generate([]), "the prompt is empty"),
        (lambda p: p.generate(""), "the prompt is empty"),
        (lambda p: p.generate([10**9]), "token id 1000000000 is not in the vocabulary"),
        (lambda p: p.generate([-1]), "token id -1 is not in the vocabulary"),
        (lambda p: p.generate(["a", "b"]), "the prompt is a list of texts; expected one text"),
        (lambda p: p.stream(["a"]), "the prompt is a list of texts; expected one text"),
        (lambda p: p.generate_batch("abc"), "the prompts are of the type str; expected a list of prompts"),
        (lambda p: p.generate_batch([1, 2]), "the prompts are token ids; expected a list of prompts"),
        (lambda p: p.generate_batch([b"x"]), "the prompt is of the type bytes"),
        (lambda p: p.logits([1.0]), "the prompt holds 1.0; expected token ids"),
        (lambda p: p.fill("a", None), "the code around the gap is of the type NoneType; expected two texts"),
        (lambda p: p.fill(b"a", "b"), "the code around the gap is of the type bytes; expected two texts"),
    ],
)
def test_what_is_no_prompt_is_refused(scripted: Pipeline, call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        call(scripted)
    assert "\n" not in str(error.value)


def test_numpy_ids_are_ids(scripted: Pipeline) -> None:
    ids = scripted.encode("xF")
    assert scripted.generate(np.array(ids)).text == scripted.generate(ids).text == "foooST"  # type: ignore[arg-type]


def test_biases_may_be_a_dictionary(scripted: Pipeline) -> None:
    (x,) = scripted.encode("x")
    assert scripted.generate("xF", max_new_tokens=2, logit_bias={x: 1e9}).token_ids == [x, x]


def test_a_second_prompt_reads_what_is_new(nano: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    extend = nano.model.extend
    monkeypatch.setattr(
        nano.model, "extend", lambda slots, ids, rows: (counts.extend(map(len, ids)), extend(slots, ids, rows))[1]
    )
    prompt = "import os\n\n" + "def f(x):\n    return x\n\n" * 20
    nano.generate(prompt, max_new_tokens=4)
    first = sum(counts)
    counts.clear()
    text = nano.generate(prompt + "def g(", max_new_tokens=1).text
    assert sum(counts) < 20 < first
    assert text == load("nano", max_length=1024).generate(prompt + "def g(", max_new_tokens=1).text


def test_samples_read_their_prompt_once(nano: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    extend = nano.model.extend
    monkeypatch.setattr(
        nano.model, "extend", lambda slots, ids, rows: (counts.extend(map(len, ids)), extend(slots, ids, rows))[1]
    )
    prompt = nano.prompt("# read once\n" + "y = [1, 2, 3]\n" * 30)
    pieces = list(nano.stream_prompts([prompt] * 4, max_new_tokens=2, top_k=8, seed=1))
    assert {piece.index for piece in pieces} == {0, 1, 2, 3}
    assert sum(counts) <= len(prompt.ids) + 3 + 4


needs_server = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("fastapi", "zmq", "httptools")), reason="needs the extra serve"
)


@pytest.fixture(scope="session")
def scripted_server(scripted_path: Path) -> Iterator[RunningServer]:
    from running_server import RunningServer

    options = ["--model", str(scripted_path), "--max-length", "256", "--max-cache-batch-size", "12"]
    with RunningServer(*options, "--max-queue-size", "600") as running:
        yield running.wait_ready()


BAD: list[tuple[str, dict[str, Any]]] = [
    ("/completion", {"prompt": "xM", "n_predict": 8}),
    ("/completion", {"prompt": "xM", "n_predict": 8, "top_k": 40}),
    ("/completion", {"prompt": "xN", "temperature": 1e-40, "min_p": 0.05, "n_predict": 4}),
    ("/completion", {"prompt": "xN", "temperature": 1e-30, "repeat_penalty": 1e-10, "n_predict": 4}),
    ("/completion", {"prompt": "xN", "repeat_penalty": 1e-300, "n_predict": 4}),
    ("/v1/completions", {"prompt": "xM", "max_tokens": 8, "logprobs": 3}),
    ("/v1/completions", {"prompt": "xM", "max_tokens": 8, "temperature": 0}),
    ("/v1/completions", {"prompt": "xC", "max_tokens": 8, "temperature": 0}),
    ("/v1/completions", {"prompt": "xN", "suffix": "<fim_middle>", "max_tokens": 4, "temperature": 0}),
    ("/v1/completions", {"prompt": "xN", "n": 4, "echo": True, "logprobs": 1, "max_tokens": 2}),
    ("/infill", {"input_prefix": "xA", "input_suffix": "", "n_indent": 2, "n_predict": 8}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "xM"}], "max_tokens": 6}),
]


@needs_server
def test_bad_requests_never_reach_good_clients(scripted_server: RunningServer, scripted: Pipeline) -> None:
    letters = "ABFGHJLN"
    expected = {letter: scripted.generate("x" + letter, max_new_tokens=16).text for letter in letters}
    stop = threading.Event()
    wrong: list[tuple[str, str]] = []
    served = [0]

    def good(letter: str) -> None:
        while not stop.is_set():
            body = {"prompt": "x" + letter, "max_tokens": 16, "temperature": 0}
            text = scripted_server.post("/v1/completions", body).json()["choices"][0]["text"]
            served[0] += 1
            if text != expected[letter]:
                wrong.append((letter, text))

    threads = [threading.Thread(target=good, args=(letter,)) for letter in letters]
    for thread in threads:
        thread.start()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: scripted_server.post(*BAD[i % len(BAD)]), range(500)))
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert served[0] > 50
    for index, answer in enumerate(answers):
        route, body = BAD[index % len(BAD)]
        failing = "xM" in str(body)
        assert answer.status_code == (500 if failing else 200), (route, body, answer.text)
        if failing:
            error = answer.json()["error"]
            assert error["code"] == ("sequence_failed" if route.startswith("/v1/") else 500)  # each API's own shape
            assert "the highest logit is nan" in error["message"]
    assert scripted_server.get("/health").status_code == 200


@needs_server
def test_markers_in_a_gap_are_text_and_usage_counts_what_was_read(
    scripted_server: RunningServer, scripted: Pipeline
) -> None:
    plain = {"prompt": "x = 1\n", "suffix": "y = 2\n", "max_tokens": 1}
    spelled = {"prompt": "x = '<fim_middle>'\n", "suffix": "y = '<fim_prefix>'\n", "max_tokens": 1}
    for body in (plain, spelled):
        usage = scripted_server.post("/v1/completions", body).json()["usage"]
        pieces = [body["prompt"], body["suffix"]]
        ids = sum(len(scripted.tokenizer.encode(str(piece), parse_special=False)) for piece in pieces)
        assert usage["prompt_tokens"] == ids + 3  # the markers
        assert usage["prompt_tokens_details"]["cached_tokens"] <= usage["prompt_tokens"]
    # Without a suffix a spelled marker is the token: clients' own templates rely on it.
    template = scripted_server.post(
        "/v1/completions", {"prompt": "<fim_prefix>x<fim_suffix>y<fim_middle>", "max_tokens": 1}
    )
    assert template.json()["usage"]["prompt_tokens"] == 5


@needs_server
def test_samples_with_echo_and_log_probabilities_read_the_prompt_once(scripted_server: RunningServer) -> None:
    prompt = "x" * 150 + "N"
    body = {"prompt": prompt, "n": 6, "echo": True, "logprobs": 1, "max_tokens": 2, "temperature": 0}
    answer = scripted_server.post("/v1/completions", body).json()
    assert {choice["text"] for choice in answer["choices"]} == {prompt + "n1n2"}
    first, *others = (choice["logprobs"] for choice in answer["choices"])
    assert all(other == first for other in others)
    assert len(first["tokens"]) == 153
    usage = answer["usage"]
    assert usage["prompt_tokens"] == 151
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert usage["completion_tokens"] == 12
