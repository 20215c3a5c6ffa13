"""The Ray cluster that a command runs on: joined, or started on this machine alone for as long as the command runs."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.server.model_info import package_version
from pipelines.server.options import ServeOptions
from pipelines.terminal.options import MODEL
from weights.embedded_models import EMBEDDED
from weights.errors import UserError
from weights.files.paths import exists

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline
    from pipelines.registry import ModelFiles

# The cluster of RAY_ADDRESS, else one that runs on this machine, else one of this command's own.
AUTO = "auto"
_OWN = "local"  # Ray's word for the last of these
# A cluster of the command's own reports to nobody; what matters comes as an exception, not as a line.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
# Options that may be paths, and values of theirs that are none.
_PATHS = ("model", "weight_path", "config_path", "tokenizer_path", "serialized_model_path", "draft")
_NO_PATHS = {*EMBEDDED, "auto", "none", "ngram"}
# Seconds for a head node to take a connection.
_PATIENCE = 10.0
_ADDRESS = re.compile(r"[\w.-]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}")


def check_installed() -> None:
    """Raises UserError where the extra `ray` is missing."""
    for module in ("ray", "pandas", "pyarrow"):
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"the Python package {module} is missing; expected Ray's packages: "
                'pip install ".[ray]" in the checkout, or the wheel with [ray] after its path'
            )


def check_address(address: str) -> str:
    """The address that counts, RAY_ADDRESS where the option names none. Raises UserError for what no cluster can have.

    Ray's own words: `auto` for one that is to be found or started, `local` for one that is to be started.
    """
    name = "--ray"
    if address == AUTO and os.environ.get("RAY_ADDRESS"):
        name, address = "RAY_ADDRESS", os.environ["RAY_ADDRESS"]
    if address.startswith("ray://"):
        raise UserError(
            f"{name} is {address}, a Ray client's; expected the address of the cluster itself, such as 10.0.0.1:6379: "
            "run the command on a machine of the cluster, which reads and writes the files"
        )
    if address not in (AUTO, _OWN) and not _ADDRESS.fullmatch(address):
        nothing = "nothing: write --ray last, or --ray=auto" if name == "--ray" else "none"
        raise UserError(f"{name} is {address!r}; expected a cluster's address such as 10.0.0.1:6379, or {nothing}")
    return address


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Within, Ray calls go to the cluster. Raises UserError where there is none, or none that can be joined."""
    check_installed()
    where = check_address(address)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.data

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    quiet = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    if where != _OWN and _answers(where):
        try:
            ray.init(address=where, **quiet)
        except (ConnectionError, RuntimeError) as error:
            reason = str(error.__cause__ or error).strip()
            raise UserError(f"cannot join the Ray cluster: {reason}; expected one of the same versions") from None
    elif where not in (AUTO, _OWN):
        raise UserError(f"no Ray cluster answers at {where}; expected the address of its head node")
    else:
        _stay_on_loopback()
        ray.init(address="local", include_dashboard=False, **quiet)
    try:
        with redirect_stdout(sys.stderr):  # where Ray tells of nodes that die; results are on the other stream
            yield
    finally:
        ray.shutdown()


def _answers(where: str) -> bool:
    """Whether something listens at a cluster's address. Ray would try for minutes, and tell of each time."""
    from ray._private import services

    with suppress(OSError, OverflowError, UnicodeError):  # there is none to be found, no such name or port
        host, _, port = services.canonicalize_bootstrap_address(where).rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
        return True
    return False


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
        """The options of a copy, which sees no other GPU than its own, and has another directory."""
        device = "gpu:0" if self.gpus else "cpu"
        return replace(
            options, threads=self.cpus, device=device, served_model_name=options.name, **_absolute_paths(options)
        )


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


def _absolute_paths(options: ServeOptions) -> dict[str, Any]:
    """The model's files, as they are found from any directory."""
    given = {name: value for name in _PATHS if (value := getattr(options, name)) and value not in _NO_PATHS}
    return {name: str(Path(value).absolute()) for name, value in given.items() if exists(value)}


def identity(files: ModelFiles) -> str:
    """What texts depend on beside the options: the same in all copies."""
    return f"{package_version()} {files.sha256}"


def open_copy(options: ServeOptions, wanted: str) -> Pipeline:
    """Loads the model that the options name. Raises UserError where its `identity` here is not the one wanted."""
    from pipelines.pipeline import load

    named = {name: getattr(options, name) for name in MODEL}
    pipeline = load(**named, device=options.device, max_batch_size=options.max_batch_size)
    if identity(pipeline.files) != wanted:
        raise UserError(
            f"the node {socket.gethostname()} has other files of the model {options.name!r}, or another version of "
            "this package, than the machine where the command runs; expected the same on every node"
        )
    return pipeline
