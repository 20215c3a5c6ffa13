"""The model worker as the HTTP process sees it: started, asked for tokens, watched, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any, Protocol, cast

from pipelines.engine.sequence import SequenceRequest
from pipelines.server.options import ServeOptions
from pipelines.server.process.messages import Cancel, Failed, Load, Loading, Ready, Step, Steps

# For pages that are not stored when the server ends.
SAVING_SECONDS = 20.0
_LONGEST_LINE = 1 << 16  # bytes of what the worker prints that are told as one
_LENGTH = struct.Struct("!i")  # up to 2 GiB; the connection has another form beyond


class Worker(Protocol):
    """What runs sequences, as a request sees it: another process, or for a batch file this one."""

    load: Load
    ready: Ready | None
    ended: asyncio.Event

    @property
    def in_flight(self) -> int:
        """Sequences that run or wait."""

    def submit(self, request: SequenceRequest) -> Generation:
        """Queues a sequence."""

    def runs(self, request_id: str) -> bool:
        """Whether a sequence runs or waits."""

    def cancel(self, request_id: str) -> None:
        """Called by a generation that is no longer wanted."""


class Generation:
    """One sequence that runs in the worker."""

    def __init__(self, worker: Worker, request: SequenceRequest) -> None:
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

    def cut_short(self) -> None:
        """Ends the sequence here and now; whoever listens is told that it has come to its length."""
        self._worker.cancel(self.request.id)
        self.put(Step(self.request.id, (), "length"))

    def finish(self, cancel: bool) -> None:
        """Marks the end of interest, which the worker need not be told when it knows."""
        if not self.ended:
            self.ended = True
            if cancel:
                self._worker.cancel(self.request.id)


class _Pipe(asyncio.Protocol):
    """The event loop's end of a `multiprocessing.Connection`: pickled messages, each after its length in four bytes.

    The connection itself would block the loop, and fails on half a message where the loop has made it non-blocking.
    """

    def __init__(self, on_message: Callable[[Any], None], on_end: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._transport: asyncio.WriteTransport | None = None
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.WriteTransport, transport)

    def send(self, message: Any) -> None:
        """Sends without waiting. Nothing happens once the other end has gone, which `on_end` has told."""
        assert self._transport is not None
        if not self._transport.is_closing():
            body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
            self._transport.write(_LENGTH.pack(len(body)) + body)

    def data_received(self, data: bytes) -> None:
        """Hands on all whole messages."""
        received = self._received
        received += data
        start = 0
        while len(received) >= start + _LENGTH.size:
            (size,) = _LENGTH.unpack_from(received, start)
            end = start + _LENGTH.size + size
            if len(received) < end:
                break
            message = pickle.loads(memoryview(received)[start + _LENGTH.size : end])
            start = end
            self._on_message(message)
        del received[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker has ended."""
        self._on_end()


class ModelWorker:
    """The worker process. Its death ends every generation and sets `ended`."""

    def __init__(self, on_progress: Callable[[str], None], on_line: Callable[[str], None] | None = None) -> None:
        """`on_line` is told, in a thread, what the worker and its libraries print, which else goes where ours goes."""
        self.ready: Ready | None = None
        self.failure: Failed | None = None
        self.load = Load(0, 0, 0, 0, 0)
        self.changed = asyncio.Event()  # set once, when it is ready or has failed
        self.ended = asyncio.Event()
        self._on_progress = on_progress
        self._generations: dict[str, Generation] = {}
        self._stopping = False
        self._saves = False
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            command = [sys.executable, "-m", "pipelines.server.process.worker", str(fd)]
            # MAX and faulthandler write to the descriptors themselves: no handler in the worker would see it.
            out, err = (None, None) if on_line is None else (subprocess.PIPE, subprocess.STDOUT)
            self._process = subprocess.Popen(
                command, pass_fds=[fd], env=_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
        self._lines: threading.Thread | None = None
        if on_line is not None and self._process.stdout is not None:
            self._lines = threading.Thread(target=_tell_lines, args=(self._process.stdout, on_line), daemon=True)
            self._lines.start()
        self._socket = ours
        self._pipe = _Pipe(self._handle, self._dead)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def in_flight(self) -> int:
        """Sequences that run or wait."""
        return len(self._generations)

    async def start(self, options: ServeOptions) -> None:
        """Tells the worker what to load, and listens to it in the running event loop."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self._pipe, sock=self._socket)
        self._saves = options.cache_dir is not None
        self._pipe.send(options)

    def submit(self, request: SequenceRequest) -> Generation:
        """Queues a sequence."""
        generation = Generation(self, request)
        self._generations[request.id] = generation
        self._pipe.send(request)
        return generation

    def runs(self, request_id: str) -> bool:
        """Whether a sequence runs or waits."""
        return request_id in self._generations

    def cancel(self, request_id: str) -> None:
        """Called by a generation that is no longer wanted."""
        if self._generations.pop(request_id, None) is not None:
            self._pipe.send(Cancel(request_id))

    def _handle(self, message: Steps | Ready | Failed | Loading) -> None:
        if isinstance(message, Steps):
            self.load = message.load
            for step in message.steps:
                self._deliver(step)
        elif isinstance(message, Loading):
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
            generation.put(Step(generation.request.id, (), "failed"))
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

    def kill(self) -> None:
        """Ends the process at once, also where `stop` waits for it in another thread."""
        self._stopping = True
        self._process.kill()

    def stop(self) -> None:
        """Ends the process, which stores what --cache-dir asks for, and waits for its end."""
        stores = self._saves and self.ready is not None and not self._stopping
        self._stopping = True
        try:
            if stores:
                with contextlib.suppress(OSError):  # it has ended already
                    self._socket.shutdown(socket.SHUT_WR)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=SAVING_SECONDS)
        finally:
            self.kill()
        self._process.wait()
        if self._lines is not None:
            self._lines.join(timeout=1.0)  # its last words; what it has started may hold the pipe for longer


def _tell_lines(printed: IO[bytes], tell: Callable[[str], None]) -> None:
    while line := printed.readline(_LONGEST_LINE):
        if text := line.decode(errors="replace").strip("\r\n"):
            tell(text)


def _environment() -> dict[str, str]:
    """The worker imports what this process imports, wherever it was started.

    MAX asks a Python where its library is, by default the first of PATH: another version cannot read our PYTHONPATH.
    """
    path = os.pathsep.join(entry for entry in sys.path if entry)
    asked = {"MOJO_PYTHON": sys.executable}
    return asked | os.environ | {"PYTHONPATH": path, "MAX_SERVE_DISABLE_TELEMETRY": "1"}
