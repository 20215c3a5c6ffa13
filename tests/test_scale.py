"""What can be known of Ray without Ray: its absence, addresses, which requests meet."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_batch import needs_serve, request, start, write

from pipelines.scale.cluster import Room, check_address, check_installed
from pipelines.server.options import ServeOptions
from weights.errors import UserError


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def found(name: str, *more: Any) -> Any:
        return None if name == "ray" else find_spec(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    with pytest.raises(UserError, match=r'package ray is missing; expected Ray\'s packages: pip install "\.\[ray\]"'):
        check_installed()


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "head.local:1", "[::1]:6379"])
def test_an_address_of_a_cluster(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    ("address", "told"),
    [("in.jsonl", "expected a cluster's address such as"), ("", "expected a cluster's"), ("10.0.0.1", "expected a"),
     ("ray://10.0.0.1:10001", "a Ray client's; expected the address of the cluster itself")],
)  # fmt: skip
def test_what_is_no_address(address: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_address(address)


@needs_serve
@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [request("a", prompt="x")])
    process = start(source, tmp_path / "out", "--ray", stderr=subprocess.PIPE)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told[:40]) == (1, b"replit: the Python package ray is missin")
    assert not (tmp_path / "out").exists()


def test_a_copy_takes_what_its_room_says() -> None:
    room = Room(copies=3, cpus=4, gpus=1, memory=1 << 30)
    assert room.reserved == {"num_cpus": 4, "num_gpus": 1, "memory": 1 << 30}
    placed = room.placed(ServeOptions(device="gpu:2"))
    assert (placed.threads, placed.device) == (4, "gpu:0")  # the second one of the node, the first that it sees
    assert [room.at_most(count).copies for count in (0, 2, 9)] == [1, 2, 3]
