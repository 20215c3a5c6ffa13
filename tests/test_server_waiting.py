"""Who waits for whom in the server, what is read ahead, and that nothing of it changes a text."""

from __future__ import annotations

import json
import queue
import random
import socket
import threading
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from typing import Any

import pytest
from running_server import RunningServer
from test_cut import Editor

from pipelines.engine.sampling import SamplingParams
from pipelines.engine.sequence import SequenceRequest
from pipelines.server.process.messages import Cancel
from pipelines.server.process.worker import Inbox

OPTIONS = {"temperature": 0, "n_predict": 6}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with RunningServer("--max-length", "2048", "--max-cache-batch-size", "2") as running:
        yield running.wait_ready()


def asked(name: str) -> SequenceRequest:
    """What an owner of one letter asks; w only warms the cache."""
    return SequenceRequest(name, [1], SamplingParams(max_new_tokens=1), (0,), owner=name[0], background=name[0] == "w")


class Admitted:
    """In the place of the batch: what the scheduler would be given."""

    def admit(self, request: SequenceRequest) -> Any:
        return request.id

    def has_read(self, name: str) -> bool:
        return True

    def request_of(self, name: str) -> SequenceRequest:
        return asked(name)

    def forget(self, name: str) -> None:
        pass

    def id_of(self, name: str) -> Any:
        return name


def test_owners_take_turns_and_cancelled_ones_do_not_come() -> None:
    ours, theirs = Pipe()
    inbox = Inbox(theirs, Admitted())  # type: ignore[arg-type]
    for name in ("a1", "a2", "a3", "a4", "w1", "b1", "b2"):
        ours.send(asked(name))
    ours.send(Cancel("a3"))
    ours.close()
    while not inbox.closed:  # the end comes after all that was sent
        inbox.sort(wait=True, seconds=10)
    order: list[Any] = []
    while True:
        try:
            order.append(inbox.get_nowait())
        except queue.Empty:
            break
    assert order == ["a1", "b1", "a2", "b2", "a4", "w1"]


def test_who_has_been_served_waits_no_longer_than_those_who_come_later() -> None:
    """Clients that open a connection for each request are new every time."""
    ours, theirs = Pipe()
    inbox = Inbox(theirs, Admitted())  # type: ignore[arg-type]
    order: list[Any] = []
    for names in (("a1", "a2"), ("b1", "c1"), ("d1",), ("e1",), ()):
        for name in names:
            ours.send(asked(name))
            inbox.sort(wait=True, seconds=10)
        order.append(inbox.get_nowait())
    assert order == ["a1", "a2", "b1", "c1", "d1"]


def test_a_warm_up_goes_on_when_its_client_leaves(server: RunningServer) -> None:
    body = {"input_prefix": "# warm " + "x = [1, 2]\n" * 150, "input_suffix": "y = 3\n"}
    sent = json.dumps(body | {"n_predict": 0}).encode()
    head = f"POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(sent)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + sent)
        end = time.monotonic() + 2  # it may be over before it is seen
        while time.monotonic() < end and server.metric("replit_running") + server.metric("replit_queue_depth") == 0:
            time.sleep(0.005)
    server.wait_idle()
    answer = server.post("/infill", body | OPTIONS).json()
    assert answer["tokens_evaluated"] - answer["tokens_cached"] <= 2


def test_real_requests_run_while_a_warm_up_is_pending(server: RunningServer) -> None:
    warm = {"input_prefix": "# other " + "z = [3, 4]\n" * 160, "input_suffix": "", "n_predict": 0}
    thread = threading.Thread(target=server.post, args=("/infill", warm))
    thread.start()
    assert server.post("/completion", {"prompt": "def f(", **OPTIONS}).status_code == 200
    thread.join()


def test_a_newer_warm_up_takes_the_place_of_the_older_which_is_answered(server: RunningServer) -> None:
    found: list[int] = []

    def warm(number: int) -> None:
        body = {"prompt": f"# {number}\n" + "w = [5, 6]\n" * 170, "n_predict": 0}
        found.append(server.post("/completion", body).status_code)

    threads = [threading.Thread(target=warm, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert found == [200] * 8
    several = server.post("/v1/completions", {"model": "nano", "prompt": ["a = 1", "b = 2"], "max_tokens": 0})
    assert several.status_code == 200


class Seats:
    """In the place of MAX's batch constructor."""

    def __init__(self, reading: list[str], running: list[str]) -> None:
        self.all_ce_reqs, self.all_tg_reqs = dict.fromkeys(reading), dict.fromkeys(running)

    def release_request(self, name: str) -> None:
        del self.all_ce_reqs[name]


@pytest.mark.parametrize(
    ("reading", "running", "come", "left", "order"),
    [
        (["w1", "w2"], ["a1"], ["b1"], ["w2"], ["b1", "w1"]),
        (["w1", "a1"], [], ["b1"], ["w1", "a1"], ["b1"]),  # there is a seat
        (["w1", "a1"], ["a2"], ["w2"], ["w1", "a1"], ["w2"]),  # a warm-up waits for those before it
        (["a1"], ["a2", "a3"], ["b1"], ["a1"], ["b1"]),
        (["w1", "w2"], ["a1"], ["b1", Cancel("w1")], ["w1"], ["b1", "w2"]),  # its seat is free after this pass
    ],
)
def test_a_warm_up_gives_its_seat_to_a_request(
    reading: list[str], running: list[str], come: list[Any], left: list[str], order: list[str]
) -> None:
    ours, theirs = Pipe()
    inbox = Inbox(theirs, Admitted())  # type: ignore[arg-type]
    for message in come:
        ours.send(asked(message) if isinstance(message, str) else message)
    ours.close()
    while not inbox.gone:  # all of them are taken in before one pass
        time.sleep(0.001)
    inbox.sort(wait=True, seconds=10)
    seats: Any = Seats(reading, running)
    inbox.make_room(seats, 3)
    assert list(seats.all_ce_reqs) == left
    assert [inbox.get_nowait() for _ in range(len(inbox))] == order


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 0.9, "top_k": 20, "seed": 5}])
def test_texts_are_the_same_with_and_without_reuse(server: RunningServer, options: dict[str, Any]) -> None:
    rng = random.Random(18)
    editor = Editor(rng, 200)
    reused = 0
    for _ in range(40):
        editor.edit()
        before, after, typed = editor.request()
        body = {"input_prefix": before, "input_suffix": after, "prompt": typed, "n_predict": 8, **options}
        with_reuse, without = (server.post("/infill", body | {"cache_prompt": use}).json() for use in (True, False))
        assert with_reuse["content"] == without["content"]
        assert without["tokens_cached"] == 0
        reused += with_reuse["tokens_cached"] > 0.9 * with_reuse["tokens_evaluated"]
    assert reused > 30


def test_a_prompt_that_is_read_runs(server: RunningServer) -> None:
    body = {"prompt": "# read\n" + "v = [7, 8]\n" * 190, "n_predict": 1, "cache_prompt": False}
    thread = threading.Thread(target=server.post, args=("/completion", body))
    thread.start()
    seen = set()
    while thread.is_alive():
        seen.add((server.metric("replit_running"), server.metric("replit_queue_depth")))
    assert (1, 0) in seen


def test_streams_go_on_while_long_prompts_are_read(server: RunningServer) -> None:
    """The text of each is what it is alone."""
    prompts = [f"# {i}\n" + "def f(x):\n    return x\n\n" * (1 + 60 * (i % 2)) for i in range(6)]
    alone = [
        server.post("/completion", {"prompt": p, **OPTIONS, "cache_prompt": False}).json()["content"] for p in prompts
    ]
    found: dict[str, str] = {}

    def ask(prompt: str) -> None:
        answer = server.post("/completion", {"prompt": prompt, **OPTIONS, "cache_prompt": False})
        found[prompt] = answer.json()["content"]

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[prompt] for prompt in prompts] == alone
