"""The Ray cluster that a command runs on: joined, or started on this machine alone for as long as the command runs."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines.server.options import ServeOptions
from pipelines.terminal.options import MODEL
from weights.errors import UserError

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline
    from pipelines.registry import ModelFiles

# The cluster of RAY_ADDRESS, else one that runs on this machine, else one of this command's own.
AUTO = "auto"
# A cluster of the command's own reports to nobody; what matters comes as an exception, not as a line.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
_ADDRESS = re.compile(r"[\w.-]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}")


def check_installed() -> None:
    """Raises UserError where the extra `ray` is missing."""
    for module in ("ray", "pandas", "pyarrow"):
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"the Python package {module} is missing; expected Ray's packages: "
                'pip install ".[ray]" in the checkout, or the wheel with [ray] after its path'
            )


def check_address(address: str) -> None:
    """Raises UserError for what no Ray cluster can have as its address."""
    if address.startswith("ray://"):
        raise UserError(
            f"--ray is {address}, a Ray client's; expected the address of the cluster itself, such as 10.0.0.1:6379: "
            "run the command on a machine of the cluster, which reads and writes the files"
        )
    if address != AUTO and not _ADDRESS.fullmatch(address):
        raise UserError(
            f"--ray is {address!r}; expected a cluster's address such as 10.0.0.1:6379, or nothing: write --ray last, "
            "or --ray=auto"
        )


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Within, Ray calls go to the cluster. Raises UserError where there is none."""
    check_installed()
    check_address(address)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.data

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    quiet = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    try:
        ray.init(address=address, **quiet)
    except ConnectionError:
        if address != AUTO or os.environ.get("RAY_ADDRESS"):
            where = os.environ["RAY_ADDRESS"] if address == AUTO else address
            raise UserError(f"no Ray cluster answers at {where}; expected the address of its head node") from None
        _stay_on_loopback()
        ray.init(address="local", include_dashboard=False, **quiet)
    try:
        with redirect_stdout(sys.stderr):  # where Ray tells of nodes that die; results are on the other stream
            yield
    finally:
        ray.shutdown()


def _stay_on_loopback() -> None:
    """A cluster that is started from now on listens on loopback alone, as Ray does by itself on macOS and Windows.

    Its argument for a node's address takes loopback for a mistake.
    """
    from ray._private import ray_constants

    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"  # for the processes that it starts
    ray_constants.ENABLE_RAY_CLUSTER = False


@dataclass(frozen=True)
class Room:
    """How many copies of a model the cluster has room for now, and what each takes of it."""

    copies: int
    cpus: int  # of a copy, which runs as many threads
    gpus: int
    memory: int  # bytes of a copy

    @property
    def reserved(self) -> dict[str, Any]:
        """What Ray keeps for a copy."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory}

    def at_most(self, copies: int) -> Room:
        """The same with no more copies than there is work for."""
        return replace(self, copies=max(min(self.copies, copies), 1))

    @property
    def text(self) -> str:
        """For the user."""
        copies = "a copy" if self.copies == 1 else f"{self.copies} copies"
        each = "a GPU" if self.gpus else "a thread" if self.cpus == 1 else f"{self.cpus} threads"
        return f"{copies} of the model on the Ray cluster, {each} each"

    def placed(self, options: ServeOptions) -> ServeOptions:
        """The options of a copy, which sees no other GPU than its own."""
        return replace(options, threads=self.cpus, device="gpu:0" if self.gpus else "cpu")


def find_room(options: ServeOptions, files: ModelFiles) -> Room:
    """Room for copies of the model: on CPUs one a node, or with `threads` one for every so many.

    A decoder is bound by memory bandwidth, which copies on one node would share. Raises UserError where not one fits.
    """
    import ray

    from pipelines.server.room import model_bytes

    threads, on_gpu, memory = options.threads, options.device != "cpu", model_bytes(options, files)
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    processors = [int(resources["CPU"]) for resources in found if resources.get("CPU", 0) >= 1]
    if not processors:
        raise UserError("the Ray cluster has no node with a processor; expected one that runs tasks: see ray status")
    cpus = threads or (1 if on_gpu else min(processors))
    room = Room(0, cpus, int(on_gpu), memory)
    copies = sum(_fitting(resources, room) for resources in found)
    if not copies:
        raise UserError(
            f"no node of the Ray cluster has room for the model: it takes {cpus} processors"
            f"{', a GPU' if on_gpu else ''} and {memory >> 20} MiB; expected such a node, or fewer --threads: "
            "see ray status"
        )
    return Room(copies, cpus, int(on_gpu), memory)


def _fitting(resources: dict[str, float], room: Room) -> int:
    wanted = {"CPU": room.cpus, "GPU": room.gpus, "memory": room.memory}
    return min(int(resources.get(name, 0) // amount) for name, amount in wanted.items() if amount)


def open_copy(options: ServeOptions) -> Pipeline:
    """Loads the model that the options name."""
    from pipelines.pipeline import load

    named = {name: getattr(options, name) for name in MODEL}
    return load(**named, device=options.device, max_batch_size=options.max_batch_size)
