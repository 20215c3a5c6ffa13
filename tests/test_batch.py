"""`replit batch`: OpenAI's batch lines in, results out; nothing lost, nothing twice, whatever interrupts it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from importlib.util import find_spec
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from pipelines.pipeline import Pipeline
from pipelines.server.offline.feed import Feed, Selection, Wanted, next_window
from pipelines.server.offline.line import LONGEST_LINE, Line, parse_line, read_lines
from pipelines.server.offline.progress import Progress, duration
from pipelines.server.offline.results import ResultFile
from pipelines.server.options import ServeOptions
from weights.errors import UserError

if TYPE_CHECKING:
    from running_server import RunningServer

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-c", "from pipelines.commands.cli import main; main()", "batch"]
needs_serve = pytest.mark.skipif(find_spec("fastapi") is None, reason="needs the extra serve")
Result = dict[str, Any]


def request(custom_id: str, url: str = "/v1/completions", **body: Any) -> Result:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "nano", **body}}


def requests(count: int) -> Iterator[Result]:
    """Of all three routes, greedy ones and drawn ones, some of which fail."""
    words = ("def parse(", "class Node", "import ", "for line in ", "return ")
    for i in range(count):
        text = f"{words[i % 5]}{words[i % 3]}{i}"
        more: Result = {"max_tokens": 3 + i % 5}
        if i % 7 == 3:
            yield request(f"é{i}", "/v1/chat/completions", messages=[{"role": "user", "content": text}], **more)
        elif i % 7 == 5:
            yield request(f"é{i}", "/v1/fim/completions", prompt=text, suffix="\n    return x", **more)
        elif i % 11 == 10:
            yield request(f"é{i}", prompt=text, max_tokens=-7)
        else:
            yield request(f"é{i}", prompt=text, temperature=i % 2, **more)


def nested(depth: int) -> str:
    """A line with a prompt in so many lists."""
    prompt = "[" * depth + "1" + "]" * depth
    return f'{{"custom_id": "{depth}", "url": "/v1/completions", "body": {{"prompt": {prompt}}}}}'


def write(path: Path, lines: Iterator[Result] | list[Result]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def comparable(path: Path) -> list[str]:
    """The results, sorted, without the time when they were made. Fails where a line is not whole or an id is twice."""
    results = read(path)
    assert len({result["id"] for result in results}) == len(results)
    for result in results:
        ((result["response"] or {}).get("body") or {}).pop("created", None)
    return sorted(json.dumps(result) for result in results)


def read(path: Path) -> list[Result]:
    text = path.read_bytes()
    assert not text or text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


def run_here(nano: Pipeline, source: Path, output: Path, *, keep_order: bool = False, **more: Any) -> Progress:
    """As the command does it, with a model that is loaded."""
    from pipelines.server.offline.run import BatchFiles, answer_here, run_batch

    errors = more.pop("errors", output)
    files = BatchFiles(source, output, errors, Selection(**more), keep_order)
    options = ServeOptions(max_length=1024, max_batch_size=4, max_queue_size=1 << 30)
    return run_batch(files, options, answer_here(lambda: nano), quiet=True)


def start(*arguments: str | Path, environment: dict[str, str] | None = None, **streams: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **(environment or {})}
    options = ("--max-length", "1024", "--batch-size", "4", "--quiet")
    return subprocess.Popen([*COMMAND, *map(str, arguments), *options], env=environment, **streams)


@pytest.fixture(scope="module")
def undisturbed(nano: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """200 requests and their results."""
    folder = tmp_path_factory.mktemp("batch")
    source, output = write(folder / "in.jsonl", requests(200)), folder / "out.jsonl"
    run_here(nano, source, output)
    return source, output


@needs_serve
def test_each_line_has_one_result_with_the_text_that_python_gives(nano: Pipeline, undisturbed: Any) -> None:
    results = {result["custom_id"]: result for result in read(undisturbed[1])}
    assert set(results) == {f"é{i}" for i in range(200)}
    for line in requests(200):
        result, body = results[line["custom_id"]], line["body"]
        assert result["error"] is None
        if body["max_tokens"] < 0:
            assert result["response"]["status_code"] == 400
            assert result["response"]["body"]["error"]["param"] == "max_tokens"
        elif body.get("temperature") == 0:
            (choice,) = result["response"]["body"]["choices"]
            expected = nano.generate(body["prompt"], max_new_tokens=body["max_tokens"])
            assert (choice["text"], choice["finish_reason"]) == (expected.text, expected.finish_reason)


@needs_serve
def test_killed_at_any_moment_the_same_command_goes_on(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    source, expected = undisturbed
    output, moments, lines = tmp_path / "out.jsonl", random.Random(5), 0
    while lines < 170:
        process = start(source, output)
        wanted = lines + moments.randint(1, 60)
        while process.poll() is None and (lines := count(output)) < min(wanted, 170):
            time.sleep(0.002)
        process.kill()
        process.wait()
        lines = count(output)
        with output.open("ab") as file:  # what a machine that stops in the middle of a write leaves
            file.write(expected.read_bytes()[: moments.choice((0, 1, 9, 30, 200))].partition(b"\n")[0])
    assert start(source, output).wait(timeout=300) == 0
    assert comparable(output) == comparable(expected)


def count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@needs_serve
def test_shards_together_are_the_whole_and_limits_are_raised_later(
    nano: Pipeline, undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    source, expected = undisturbed
    together = tmp_path / "together.jsonl"
    for shard in range(1, 5):
        run_here(nano, source, tmp_path / f"{shard}.jsonl", shard=shard, shards=4)
        assert count(tmp_path / f"{shard}.jsonl") == 50
    together.write_bytes(b"".join((tmp_path / f"{shard}.jsonl").read_bytes() for shard in range(1, 5)))
    assert comparable(together) == comparable(expected)
    for limit in (30, None):
        run_here(nano, source, tmp_path / "limited.jsonl", limit=limit)
        assert count(tmp_path / "limited.jsonl") == (limit or 200)
    assert comparable(tmp_path / "limited.jsonl") == comparable(expected)


@needs_serve
def test_results_keep_the_order_and_failed_ones_have_a_file(
    nano: Pipeline, undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    source, expected = undisturbed
    good, bad, both = tmp_path / "good.jsonl", tmp_path / "bad.jsonl", tmp_path / "both.jsonl"
    for limit in (90, None):  # the second goes on with both files
        run_here(nano, source, good, keep_order=True, errors=bad, limit=limit)
    failing = [line["custom_id"] for line in requests(200) if line["body"]["max_tokens"] < 0]
    assert [result["custom_id"] for result in read(bad)] == failing
    assert failing
    passing = [line["custom_id"] for line in requests(200) if line["body"]["max_tokens"] >= 0]
    assert [result["custom_id"] for result in read(good)] == passing
    both.write_bytes(good.read_bytes() + bad.read_bytes())
    assert comparable(both) == comparable(expected)


@needs_serve
def test_what_is_told_of_failed_lines_is_how_many_there_are(nano: Pipeline, tmp_path: Path) -> None:
    """In the order of the lines the last that is written may be another one than the last that ended."""
    lines = [request("a", prompt="x = [", max_tokens=40, ignore_eos=True), *(request(str(i)) for i in range(7))]
    progress = run_here(nano, write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl", keep_order=True)
    assert (progress.succeeded, progress.failed) == (1, 7)


@needs_serve
def test_the_file_of_errors_may_be_that_of_the_results_or_a_stream(nano: Pipeline, tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.jsonl", [request("a")]), tmp_path / "out.jsonl"
    (tmp_path / "link").symlink_to(output)
    for errors in (tmp_path / "link", tmp_path / "." / ".." / tmp_path.name / "out.jsonl"):
        run_here(nano, source, output, errors=errors)
        assert [result["custom_id"] for result in read(output)] == ["a"]
    process = start(source, tmp_path / "good.jsonl", "--error-file", "-", stdout=subprocess.PIPE)
    assert json.loads(process.communicate(timeout=60)[0])["custom_id"] == "a"
    assert read(tmp_path / "good.jsonl") == []


@needs_serve
def test_what_is_wrong_with_a_line_is_in_its_own_result(nano: Pipeline, tmp_path: Path) -> None:
    lines = [
        '{"custom_id": "twice", "url": "/v1/completions", "body": {"prompt": "x", "max_tokens": 1}}',
        "no JSON",
        "[" * 100_000,
        *map(nested, (198, 199, 975)),
        "",
        '["a list"]',
        '{"url": "/v1/completions"}',
        '{"custom_id": "\\ud800", "url": "/v1/completions"}',
        '{"custom_id": "get", "method": "GET", "url": "/v1/completions", "body": {}}',
        '{"custom_id": "elsewhere", "url": "/v1/embeddings", "body": {}}',
        '{"custom_id": "twice", "url": "/v1/completions", "body": {"prompt": "x", "max_tokens": 1}}',
        '{"custom_id": "stream", "url": "/v1/completions", "body": {"prompt": "x", "stream": true}}',
        '{"custom_id": "no body", "url": "/v1/completions"}',
        '{"custom_id": "half", "url": "/v1/completions", "body": {"prompt": "\\ud800"}}',
        '{"custom_id": "long", "url": "/v1/completions", "body": {"prompt": "%s", "max_tokens": 1}}' % ("x(" * 5000),
    ]
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(lines))
    run_here(nano, source, output, keep_order=True)
    results = read(output)
    told = [(r["error"] or r["response"]["body"].get("error") or {}).get("message", "") for r in results]
    expected = [
        "", "line 2: the line is no JSON", "line 3: the line is nested too deeply; expected at most 200",
        "prompt: expected text", "line 5: the line is nested", "line 6: the line is nested",
        "line 8: the line is no JSON ", "line 9: the line's custom_id", "line 10: the line's custom_id",
        'line 11: the line\'s method is "GET"; expected', 'line 12: the line\'s url is "/v1/embeddings"',
        'the custom_id "twice" stands in an earlier line', "stream has no meaning in a batch file",
        "the body is not as expected", "prompt: holds a lone surrogate", "the prompt has ",
    ]  # fmt: skip
    assert [message[: len(start)] for message, start in zip(told, expected, strict=True)] == expected
    statuses = [result["response"]["status_code"] for result in results if result["response"]]
    assert statuses == [200, 400, 400, 400, 400, 400]
    before = output.read_bytes()
    run_here(nano, source, output)
    assert output.read_bytes() == before


@needs_serve
def test_a_line_is_answered_as_the_server_answers_it(nano: Pipeline, server: RunningServer, tmp_path: Path) -> None:
    lines = [
        request("a", prompt=["class A", [5, 6]], n=2, best_of=3, logprobs=2, echo=True, max_tokens=4, seed=3),
        request("b", prompt="def f(", suffix="\n    return a", max_tokens=9, temperature=0.4, seed=4, stop=["\n"]),
        request("c", "/v1/chat/completions", messages=[{"role": "user", "content": "import o"}], max_tokens=5, seed=1,
                logprobs=True, top_logprobs=2, token_healing=True),
        request("d", "/v1/fim/completions", prompt="x = [", suffix="]", random_seed=5, max_tokens=4, min_tokens=9),
        request("e", prompt="x", best_of=1, n=2),
        request("f", prompt="x", max_tokens=0, echo=True, logprobs=0, seed=1),
    ]  # fmt: skip
    run_here(nano, write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl", keep_order=True)
    for line, result in zip(lines, read(tmp_path / "out.jsonl"), strict=True):
        response = server.post(line["url"], line["body"])
        assert result["response"]["status_code"] == response.status_code
        here, there = result["response"]["body"], response.json()
        for name in ("prompt_tokens_details", "completion_tokens_details"):
            there.get("usage", {}).pop(name, None)
        for name in ("id", "created", "system_fingerprint"):  # the last is made of more
            here.pop(name, None), there.pop(name, None)
        assert here == there


@needs_serve
def test_a_pipe_is_answered_while_its_writer_waits() -> None:
    process = start("-", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    for line in islice(requests(9), 9):
        process.stdin.write(json.dumps(line).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["custom_id"] == line["custom_id"]
    process.stdin.close()
    assert (process.stdout.read(), process.wait(timeout=60)) == (b"", 0)


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    begun = b'{"id":"batch_req_%s"' % (b"0" * 24)
    for content in (
        b"hello\n", b"hello", b'{"id":"batch_req_00","custom_id":1}\n', b"{}\n", b"[]\n", b"[" * 100_000 + b"\n",
        begun + b"\0\0\0}\n", begun + b',"response":{"body":"\xff"}}\n', b"hello\0\0\0",
    ):  # fmt: skip
        path = tmp_path / "notes.txt"
        path.write_bytes(content)
        with pytest.raises(UserError, match="holds no result of replit batch in line 1; expected such results"):
            ResultFile(path)
        assert path.read_bytes() == content


def test_a_last_line_that_is_not_whole_is_cut_off_wherever_it_ends(tmp_path: Path) -> None:
    line = json.dumps({"id": parse_line(0, b'{"custom_id": "a"}').id, "custom_id": "a"}, separators=(",", ":"))
    path = tmp_path / "out.jsonl"
    for length in range(len(line) + 1):
        for zeros in ("", "\0" * 100):  # a machine without power leaves them
            path.write_text(f"{line}\n{line[:length]}{zeros}")
            ResultFile(path).close()
            whole = length == len(line) and not zeros  # as an editor leaves a last line
            assert path.read_text() == f"{line}\n" * (1 + whole)


def test_results_that_were_edited_or_hold_no_answer_are_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    rests = (
        "",
        ', "response": null',
        ', "response": [1]',
        ', "response": {"body": null}',
        ', "response": {"body": []}',
    )
    lines = [f'{{ "id" : "{Line(i, None).id}"{rest}}}' for i, rest in enumerate(rests)]
    path.write_bytes("\r\n\r\n".join(["\ufeff" + lines[0], *lines[1:], ""]).encode())
    before = path.read_bytes()
    results = ResultFile(path)
    results.close()
    assert (results.done, results.model) == ({Line(i, None).key for i in range(len(rests))}, None)
    assert path.read_bytes() == before


@needs_serve
@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_where_results_cannot_go_nothing_else_is_told(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [request(str(i), prompt="x", max_tokens=1) for i in range(300)])
    full = start(source, "/dev/full", stderr=subprocess.PIPE)
    told = full.communicate(timeout=60)[1].decode().splitlines()
    assert (full.returncode, len(told)) == (1, 1), told
    assert told[0].startswith("replit: cannot write /dev/full: No space left on device; expected room for it")
    left = start(source, "-", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert left.stdout is not None
    assert left.stderr is not None
    assert json.loads(left.stdout.readline())["response"]["status_code"] == 200
    left.stdout.close()
    assert (left.stderr.read(), left.wait(timeout=60)) == (b"", 1)


def test_what_the_disk_tells_at_the_end_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As network file systems with a quota do."""
    results = ResultFile(tmp_path / "out.jsonl")
    results.write("{}")
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.EDQUOT, "Disk quota exceeded")))
    with pytest.raises(UserError, match=r"cannot write .*out\.jsonl: Disk quota exceeded; expected room for it"):
        results.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_two_runs_do_not_write_to_one_file(tmp_path: Path) -> None:
    first = ResultFile(tmp_path / "out.jsonl")
    with pytest.raises(UserError, match="another replit batch writes to"):
        ResultFile(tmp_path / "out.jsonl")
    first.close()
    ResultFile(tmp_path / "out.jsonl").close()


@needs_serve
def test_the_input_is_not_written_to_nor_answers_of_two_models_mixed(
    nano: Pipeline, undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    source = tmp_path / "in.jsonl"
    source.touch()
    with pytest.raises(UserError, match=r"in\.jsonl is the input too; expected another file"):
        run_here(nano, source, source)
    with source.open("ab") as end:
        appended = start(source, "-", stdout=end, stderr=subprocess.PIPE)
        assert b"standard output is the input too" in appended.communicate(timeout=60)[1]
    other = tmp_path / "out.jsonl"
    other.write_text(undisturbed[1].read_text().replace('"model":"nano"', '"model":"large"'))
    with pytest.raises(UserError, match="holds answers of the model 'large'; expected those of 'nano'"):
        run_here(nano, undisturbed[0], other)
    found = json.loads(undisturbed[1].read_text().partition("\n")[0])["response"]["body"]["system_fingerprint"]
    for before, refused in ((found.replace("b", "b9-", 1), False), (found[:-1] + "x", True)):  # a version, a digest
        other.write_text(undisturbed[1].read_text().replace(found, before))
        if refused:
            with pytest.raises(UserError, match=r"answers of 'nano' with other weights, .* \(system_fingerprint "):
                run_here(nano, undisturbed[0], other)
        else:
            run_here(nano, undisturbed[0], other)


@needs_serve
def test_answers_are_told_apart_by_all_that_they_depend_on(nano: Pipeline) -> None:
    from pipelines.server.offline.answer import facts_of

    changes: list[dict[str, Any]] = [
        {}, {"quantization_encoding": "q4_0"}, {"kv_cache_encoding": "bfloat16"}, {"device": "gpu:0"},
    ]  # fmt: skip
    digests = [facts_of(ServeOptions(**change), nano.files).digest for change in changes]
    assert len(set(digests)) == len(changes)
    same: list[dict[str, Any]] = [{"quantization_encoding": "bfloat16", "threads": 1, "max_batch_size": 2}]
    assert [facts_of(ServeOptions(**change), nano.files).digest for change in same] == digests[:1]
    other = replace(nano.files, tokenizer=copy(nano.tokenizer))
    other.tokenizer.special = replace(nano.tokenizer.special, eos=None)
    assert facts_of(ServeOptions(), other).digest not in digests
    assert ServeOptions(weight_path="a.gguf").name == "a.gguf"


def test_a_long_line_is_never_in_memory_as_a_whole() -> None:
    whole = b"x" * (3 * LONGEST_LINE) + b"\nnext\n"
    lines = list(read_lines(BytesIO(whole)))
    assert [len(line) for line in lines] == [LONGEST_LINE + 1, 5]
    assert parse_line(0, lines[0]).error == (
        "invalid_line",
        f"line 1: the line is too long; expected at most {LONGEST_LINE} bytes",
    )


def test_lines_are_utf_8_with_or_without_its_mark() -> None:
    lines = b"".join(
        b'\xef\xbb\xbf{"custom_id": "%d", "url": "/v1/completions"}\r\n\xef\xbb\xbf\r\n' % i for i in (1, 2)
    )
    assert [line.custom_id for line in Wanted(BytesIO(lines), Selection(), ())] == ["1", "2"]
    assert Selection().count(BytesIO(lines)) == 2
    for encoding in ("utf-16", "utf-32"):  # both begin with the same mark
        with pytest.raises(UserError, match="the input is UTF-16; expected UTF-8"):
            Selection().count(BytesIO(lines.decode("utf-8-sig").encode(encoding)))
    (unmarked,) = Wanted(BytesIO('{"custom_id": "é"}'.encode("utf-16-le")), Selection(), ())
    assert unmarked.error is not None


def test_windows_hold_fewer_of_long_lines() -> None:
    """In memory are two of them, of up to 64 MiB."""

    def windows(text: bytes) -> Iterator[list[tuple[int, Line]]]:
        placed = enumerate(Wanted(BytesIO(text), Selection(), ()))
        return iter(lambda: next_window(placed), [])

    async def fed(text: bytes) -> list[list[tuple[int, Line]]]:
        return [window async for window in Feed(Wanted(BytesIO(text), Selection(), ())).windows(whole=True)]

    for length, counts in ((10, [1024, 76]), (1 << 20, [61, 61, 3])):
        text = b"".join(
            b'{"custom_id": "%d", "url": "/v1/completions", "body": {"prompt": "%s"}}\n' % (i, b"x" * length)
            for i in range(sum(counts))
        )
        assert [len(window) for window in windows(text)] == counts
        assert [len(window) for window in asyncio.run(fed(text))] == counts


def test_ids_and_seeds_follow_from_the_custom_id_alone() -> None:
    one, other = (Line(index, "a", body={"prompt": "x"}) for index in (1, 8))
    assert (one.id, one.request_id, one.seed) == (other.id, other.request_id, other.seed)
    assert one.id != Line(1, "b").id
    assert len({line.id for line in (one, one.repeated(), other.repeated(), Line(2, None))}) == 4
    assert 0 <= one.seed < 2**48


def test_what_is_done_is_not_wanted_again() -> None:
    text = b"".join(b'{"custom_id": "%d", "url": "/v1/completions"}\n' % i for i in (1, 2, 3, 2))
    done = {Line(0, "2").key}
    wanted = Wanted(BytesIO(text), Selection(), done)
    assert [(line.custom_id, line.error is not None) for line in wanted] == [("1", False), ("3", False), ("2", True)]
    assert wanted.skipped == 1


@pytest.mark.parametrize(("seconds", "told"), [(3, "3 s"), (89.6, "90 s"), (600, "10 min"), (7500, "2 h 5 min")])
def test_times_are_told_in_words(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_what_follows_the_progress_on_a_terminal_has_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress(3, quiet=False)
    for _ in range(2):
        progress.leave()
        assert capsys.readouterr().err == ""
        progress.show()
        progress.leave()
        assert capsys.readouterr().err.endswith("\n")


@pytest.mark.parametrize("share", ["0/4", "5/4", "1", "a/b", "1/0"])
def test_a_share_that_is_none_is_a_usage_error(share: str) -> None:
    process = start("in", "out", "--shard", share, stderr=subprocess.PIPE)
    _, told = process.communicate()
    assert process.returncode == 2
    assert b"is no share such as 1/4" in told


@needs_serve
def test_the_command_takes_order_and_a_file_of_errors(nano: Pipeline, tmp_path: Path) -> None:
    lines = [request("a", prompt="x = ", max_tokens=2), request("b", prompt=""), request("c", prompt="y", max_tokens=1)]
    source, output, errors = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
    command = [*COMMAND, str(source), str(output), "--error-file", str(errors), "--keep-order", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert [result["custom_id"] for result in read(output)] == ["a", "c"]
    assert [result["custom_id"] for result in read(errors)] == ["b"]
