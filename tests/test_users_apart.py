"""Users who are kept apart: what one sends or is given shows in no count of another's cached or guessed tokens."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.engine.ngram import Histories

if TYPE_CHECKING:
    from running_server import RunningServer

NEEDED = ("fastapi", "zmq", "httptools")
pytestmark = pytest.mark.skipif(any(find_spec(name) is None for name in NEEDED), reason="needs the extra serve")

KEYS = ("sesame", "mellon")
FEW = 10  # the first tokens, which all prompts here have in common


def prompt(number: int) -> str:
    return (
        f"# {number} is a number that no other test of this file has\n" + "def add(a, b):\n    return a + b\n\n\n" * 8
    )


@pytest.fixture(scope="module", params=["all", "key", "user"])
def scoped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    from running_server import RunningServer

    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text("\n".join(KEYS))
    with RunningServer("--api-key-file", str(file), "--max-length", "512", "--prefix-cache-scope", request.param) as it:
        it.scope = request.param  # type: ignore[attr-defined]
        yield it.wait_ready()


def cached(server: RunningServer, text: str, key: str = "sesame", path: str = "/completion", **more: Any) -> int:
    """Tokens of the prompt that were found in the cache."""
    body = {"prompt": text, "n_predict": 1, "temperature": 0, **more}
    answer = server.post(path, body, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text
    if path == "/completion":
        return int(answer.json()["timings"]["cache_n"])
    return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_who_shares(scoped: RunningServer) -> None:
    scope: str = scoped.scope  # type: ignore[attr-defined]
    cached(scoped, prompt(1), user="ada")
    assert cached(scoped, prompt(1), user="ada") > 50
    assert (cached(scoped, prompt(1), user="bob") > 50) == (scope != "user")
    cached(scoped, prompt(2), user="ada")
    assert (cached(scoped, prompt(2), "mellon", user="ada") > 50) == (scope == "all")
    cached(scoped, prompt(3), user="ada", path="/v1/completions")
    assert (cached(scoped, prompt(3), user="bob", path="/v1/completions") > 50) == (scope != "user")


def test_salts_keep_apart_in_every_scope(scoped: RunningServer) -> None:
    cached(scoped, prompt(4), cache_salt="one")
    assert cached(scoped, prompt(4), cache_salt="two") == 0
    assert cached(scoped, prompt(4)) < FEW
    assert cached(scoped, prompt(4), cache_salt="one") > 50
    assert cached(scoped, prompt(4), cache_salt="one", cache_prompt=False) == 0
    cached(scoped, prompt(5), cache_prompt=False)
    assert cached(scoped, prompt(5)) < FEW


def test_what_was_given_to_one_is_no_guess_for_another(scoped: RunningServer) -> None:
    """The same text again is guessed right from what was generated before, unless that was another's."""

    def guessed(salt: str | None, number: int) -> int:
        body = {"prompt": f"# {number}\nx = [", "n_predict": 60, "temperature": 0.9, "seed": number, "top_k": 0}
        answer = scoped.post("/completion", body | ({"cache_salt": salt} if salt else {}),
                             headers={"Authorization": "Bearer sesame"}).json()  # fmt: skip
        return int(answer["timings"].get("draft_n_accepted", 0))

    firsts = [guessed("one", number) for number in range(4)]
    others = [guessed("two", number) for number in range(4)]
    again = [guessed("one", number) for number in range(4)]
    assert sum(again) > sum(firsts) + 40
    assert sum(others) < sum(again) - 40


def test_no_route_shows_what_another_sends_or_is_given(server: RunningServer) -> None:
    """Asked while it is answered and afterwards, every route that is read, and the log."""
    import httpx

    text, user_text = "quincunx_of_marmalade", "def quincunx_of_marmalade(jam):\n    return [jam"
    body = {"prompt": user_text, "n_predict": 200, "ignore_eos": True, "stream": True, "cache_salt": "s3cret"}
    paths = [path for path, kinds in server.get("/openapi.json").json()["paths"].items() if "get" in kinds]
    assert {"/slots", "/props", "/metrics", "/api/ps"} <= set(paths)
    told: list[str] = []
    with httpx.stream("POST", server.url + "/completion", json=body, timeout=60) as stream:
        lines = stream.iter_lines()
        next(lines)
        told += [server.get(path.replace("{model}", "nano")).text for path in paths]
        list(lines)
    server.wait_idle()
    told += [server.get(path.replace("{model}", "nano")).text for path in paths]
    assert any('"is_processing":true' in answer for answer in told)
    for answer in [*told, server.log]:
        assert text not in answer
        assert "s3cret" not in answer


@pytest.mark.parametrize("salt", ["", 5, "x" * 2000, ["a"]])
@pytest.mark.parametrize("path", ["/completion", "/v1/completions", "/api/generate"])
def test_a_salt_that_is_none_is_refused(server: RunningServer, salt: Any, path: str) -> None:
    answer = server.post(path, {"prompt": "x", "cache_salt": salt})
    assert answer.status_code == 400
    assert "cache_salt" in answer.text


def test_histories_of_salts_are_apart_and_not_without_end() -> None:
    histories = Histories(most_salts=3)
    for number in range(5):
        histories.of(str(number)).add([1, 2, 3], [number] * 5)
    histories.of(None).add([9], [9] * 9)
    assert histories.of("4").index.ids == [1, 2, 3, *[4] * 5, -1]
    assert histories.of("0").index.ids == []
    assert histories.of(None).index.ids[0] == 9


def test_stored_pages_are_of_one_salt(tmp_path: Path) -> None:
    from pipelines.server.process.prefix_cache import stored_root

    roots = {stored_root(salt) for salt in (None, "one", "two")}
    assert len(roots) == 3
    assert stored_root("one") == stored_root("one")
    assert stored_root("alone:7") is None
