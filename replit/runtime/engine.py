"""MAX's engine: the only place that holds an InferenceSession."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from replit.runtime.cores import usable_cores
from replit.runtime.log_thread import rarely_polling
from replit.runtime.weight_memory import return_unused_memory
from weights.errors import UserError


@contextmanager
def limited_to(threads: int | None) -> Iterator[None]:
    """Lets the engine that starts inside see so many cores, of which each gets a thread.

    MAX's own `num_threads` aborts the process: its session has started the CPU's threads by then.
    Raises UserError where there are fewer cores, or where the system cannot limit them.
    """
    if threads is None:
        # A container's quota is not seen by the engine, which would start a thread for each core of the machine.
        threads = usable_cores()
        if not hasattr(os, "sched_setaffinity") or threads >= len(os.sched_getaffinity(0)):
            yield
            return
    if not hasattr(os, "sched_setaffinity"):
        raise UserError(f"--threads is {threads}; expected no --threads on this system, which cannot limit cores")
    cores = os.sched_getaffinity(0)
    if threads > len(cores):
        raise UserError(f"--threads is {threads}; expected at most {len(cores)}, the cores that this process may use")
    os.sched_setaffinity(0, sorted(cores)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def check_home() -> None:
    """Raises UserError where MAX may not look for its settings: it would wait for ever."""
    if "MODULAR_HOME" in os.environ:
        return
    try:
        Path("~/.config/modular/modular.cfg").expanduser().stat()
    except PermissionError as error:
        raise UserError(
            f"{error.filename} may not be looked for: permission denied; expected a HOME that this user may "
            "enter: set HOME, or MODULAR_HOME to a folder of your own"
        ) from None
    except (OSError, RuntimeError):
        pass  # not there, or no home at all


class Engine:
    """MAX's session. One a process: the engine's threads are started once."""

    _current: Engine | None = None

    def __init__(self, threads: int | None, device: Any = None) -> None:
        from max.engine import InferenceSession

        self.threads = threads
        self.device = device
        self.process = os.getpid()
        check_home()
        with limited_to(threads):
            self.session = InferenceSession([] if device is None else [device])

    @classmethod
    def get(cls, threads: int | None = None, device: Any = None) -> Engine:
        """The engine of this process, started at the first call; `device` is a `max.driver.Accelerator`.

        Raises UserError when it already runs with another number of threads or another GPU.
        """
        if cls._current is None:
            cls._current = cls(threads, device)
        elif cls._current.process != os.getpid():
            raise UserError(
                "the engine was started in another process, whose threads a fork does not copy; expected a process "
                "that starts it itself: load models only after the fork, or start processes by spawn"
            )
        elif device is not None and device != cls._current.device:
            found = "the CPU" if cls._current.device is None else f"GPU {cls._current.device.id}"
            raise UserError(f"the engine already runs on {found}; expected GPU {device.id}: start another process")
        elif threads is not None and threads != cls._current.threads:
            raise UserError(
                f"the engine already runs with {cls._current.threads or 'all'} threads; "
                f"expected {threads}: start another process"
            )
        return cls._current

    def compile(self, graph: Any) -> Any:
        """The compiled graph; what compiling leaves of memory goes back to the system."""
        compiled = self.session.compile(graph)
        return_unused_memory()
        return compiled

    @classmethod
    def adopt(cls, session: Any) -> None:
        """Makes a session that MAX Serve has started the one of this process."""
        engine = cls.__new__(cls)
        engine.threads, engine.device, engine.session, engine.process = None, None, session, os.getpid()
        cls._current = engine


class Executable:
    """The bound graph on the CPU."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._started = False

    def execute(self, *inputs: Any) -> list[Any]:
        """The graph's outputs, as `max.engine.Model.execute` gives them."""
        if not self._started:
            self._started = True
            with rarely_polling():
                return list(self._model.execute(*inputs))
        outputs: list[Any] = self._model.execute(*inputs)
        return outputs
