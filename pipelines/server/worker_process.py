"""The model worker as the HTTP process sees it: started, asked for tokens, watched, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

from pipelines.server.messages import (
    Cancel,
    Failed,
    GenerationRequest,
    Load,
    Progress,
    Ready,
    Step,
    Steps,
)
from pipelines.server.options import ServeOptions


class Generation:
    """One sequence that runs in the worker."""

    def __init__(self, worker: ModelWorker, request: GenerationRequest) -> None:
        self.request = request
        self.ended = False
        self._worker = worker
        self._early: list[Step] = []
        self._listener: Callable[[Step], None] = self._early.append

    def listen(self, listener: Callable[[Step], None]) -> None:
        """Hands every step, from the first on, to `listener`; the last one has `end` set."""
        for step in self._early:
            listener(step)
        self._listener = listener

    def put(self, step: Step) -> None:
        """Called for each step that the worker tells."""
        self._listener(step)

    def cancel(self) -> None:
        """Frees the sequence's place in the worker; nothing happens if it has ended."""
        self.finish(cancel=True)

    def finish(self, cancel: bool) -> None:
        """Marks the end of interest, which the worker need not be told when it knows."""
        if not self.ended:
            self.ended = True
            if cancel:
                self._worker.cancel(self.request.id)


class ModelWorker:
    """The worker process. Its death ends every generation and sets `ended`."""

    def __init__(self, on_progress: Callable[[str], None]) -> None:
        self.ready: Ready | None = None
        self.failure: Failed | None = None
        self.load = Load(0, 0, 0, 0, 0)
        self.changed = asyncio.Event()  # set once, when it is ready or has failed
        self.ended = asyncio.Event()
        self._on_progress = on_progress
        self._generations: dict[str, Generation] = {}
        self._stopping = False
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            command = [sys.executable, "-m", "pipelines.server.worker", str(fd)]
            self._process = subprocess.Popen(command, pass_fds=[fd], env=_environment(), stdin=subprocess.DEVNULL)
        self._connection = Connection(ours.detach())

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def in_flight(self) -> int:
        """Sequences that run or wait."""
        return len(self._generations)

    def start(self, options: ServeOptions) -> None:
        """Tells the worker what to load, and listens to it in the running event loop."""
        self._connection.send(options)
        threading.Thread(target=self._receive, args=(asyncio.get_running_loop(),), daemon=True).start()

    def submit(self, request: GenerationRequest) -> Generation:
        """Queues a sequence. The worker always reads, so that this does not wait."""
        generation = Generation(self, request)
        self._generations[request.id] = generation
        try:
            self._connection.send(request)
        except OSError:
            self._dead()
        return generation

    def cancel(self, request_id: str) -> None:
        """Called by a generation that is no longer wanted."""
        if self._generations.pop(request_id, None) is not None:
            try:
                self._connection.send(Cancel(request_id))
            except OSError:
                self._dead()

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Reads the pipe in a thread of its own: the loop would make it non-blocking, and half a message an error."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            try:
                while True:
                    loop.call_soon_threadsafe(self._handle, self._connection.recv())
            except (EOFError, OSError):
                loop.call_soon_threadsafe(self._dead)

    def _handle(self, message: Steps | Ready | Failed | Progress) -> None:
        if isinstance(message, Steps):
            self.load = message.load
            for step in message.steps:
                self._deliver(step)
        elif isinstance(message, Progress):
            self._on_progress(message.message)
        elif isinstance(message, Ready):
            self.ready = message
            self.changed.set()
        else:
            self.failure = message

    def _deliver(self, step: Step) -> None:
        generation = self._generations.get(step.id)
        if generation is None:
            return  # cancelled while the pass ran
        if step.end is not None:
            del self._generations[step.id]
        generation.put(step)

    def _dead(self) -> None:
        if self.ended.is_set():
            return
        if self.failure is None and not self._stopping:
            self.failure = Failed(f"the model worker has died: {self._cause()}")
        for generation in list(self._generations.values()):
            generation.put(Step(generation.request.id, None, "failed"))
        self._generations.clear()
        self.changed.set()
        self.ended.set()

    def _cause(self) -> str:
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its pipe"
        if status < 0:
            hint = " (out of memory?)" if status == -signal.SIGKILL else ""
            return f"killed by {signal.Signals(-status).name}{hint}"
        return f"exit status {status}"

    def stop(self) -> None:
        """Ends the process; it has nothing to save."""
        self._stopping = True
        self._process.kill()
        self._process.wait()


def _environment() -> dict[str, str]:
    """The worker imports what this process imports, wherever it was started."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "MAX_SERVE_DISABLE_TELEMETRY": "1"}
