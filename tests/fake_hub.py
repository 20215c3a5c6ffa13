"""A model hub on a local port, as much of its HTTP interface as downloading uses."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class FakeHub:
    """Repositories by name, each with its files by revision."""

    repositories: dict[str, dict[str, Files]]
    url: str = ""
    # (method, path, Range header) of every request.
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    # Close the connection after so many bytes of a file, this many times.
    cut_after: int = 0
    cuts: int = 0
    # Whether a part of a file can be asked for, and the bytes of files that were sent.
    knows_ranges: bool = True
    sent: int = 0

    def commit(self, repository: str, revision: str) -> str:
        """The commit that a revision stands for: made up from its contents."""
        if re.fullmatch("[0-9a-f]{40}", revision):
            return revision
        return hashlib.sha1(f"{repository}@{revision}".encode()).hexdigest()

    def files(self, repository: str, revision: str) -> Files | None:
        """The files of a branch, tag or commit."""
        for name, files in self.repositories[repository].items():
            if revision in (name, self.commit(repository, name)):
                return files
        return None


@contextmanager
def serve(repositories: dict[str, dict[str, Files]]) -> Iterator[FakeHub]:
    """A hub that answers at `.url` until the block ends."""
    hub = FakeHub(repositories)

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test output clean."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        raw = urlsplit(self.path).path
        path = unquote(raw)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path):
            self._tree(found[1], found[2])
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", raw):
            self._file(unquote(found[1]), unquote(found[2]), unquote(found[3]), body)
        else:
            self._error(404, "EntryNotFound")

    def _known(self, repository: str, revision: str) -> Files | None:
        """The files, or None after an error was answered."""
        if repository not in self.hub.repositories:
            self._error(404, "RepoNotFound")
            return None
        if repository.startswith("gated/"):
            self._error(403, "GatedRepo")
            return None
        files = self.hub.files(repository, revision)
        if files is None:
            self._error(404, "RevisionNotFound")
        return files

    def _tree(self, repository: str, revision: str) -> None:
        files = self._known(repository, revision)
        if files is not None:
            self._json(
                [{"type": "file", "path": name, "size": len(data), "oid": _etag(data)} for name, data in files.items()]
            )

    def _info(self, repository: str, revision: str) -> None:
        files = self._known(repository, revision)
        if files is not None:
            commit = self.hub.commit(repository, revision)
            siblings = [{"rfilename": name} for name in files]
            self._json({"id": repository, "sha": commit, "siblings": siblings, "private": False})

    def _file(self, repository: str, revision: str, name: str, body: bool) -> None:
        files = self._known(repository, revision)
        if files is None:
            return
        if name not in files:
            self._error(404, "EntryNotFound")
            return
        data, start = files[name], 0
        end = size = len(data)
        asked = self.headers.get("Range") if self.hub.knows_ranges else None
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
        if found:
            start, end = int(found[1]), min(size, int(found[2] or size) + 1)
        self.send_response(206 if found else 200)
        self.send_header("ETag", f'"{_etag(data)}"')
        self.send_header("X-Repo-Commit", self.hub.commit(repository, revision))
        self.send_header("Accept-Ranges", "bytes")
        if found:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if body:
            self._send(data[start:end])

    def _send(self, data: bytes) -> None:
        if self.hub.cuts and len(data) > self.hub.cut_after:
            self.hub.cuts -= 1
            self.wfile.write(data[: self.hub.cut_after])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
            return
        with suppress(ConnectionError):  # a client that has enough
            for start in range(0, len(data), 1 << 20):
                self.wfile.write(data[start : start + (1 << 20)])
                self.hub.sent += len(data[start : start + (1 << 20)])

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
