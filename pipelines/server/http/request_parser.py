"""httptools' parser of requests, for a server that speaks nothing but HTTP/1.1."""

from __future__ import annotations

from typing import Any

from httptools import HttpParserUpgrade, HttpRequestParser

# What says where a request's body ends.
_FRAMING = (b"content-length", b"transfer-encoding")


class RequestParser:
    """Ignores the wish to go over to another protocol, as RFC 9110, 7.8 allows: Java's client adds `Upgrade: h2c`.

    httptools leaves what follows such a head to the other protocol. So another parser goes on, given a head that frames
    the same body; `resumes` while it reads that, of which nobody should be told.
    """

    def __init__(self, protocol: Any) -> None:
        """`protocol` has the callbacks, and the `headers` of the request."""
        self._protocol = protocol
        self._parser = self._new()
        self.resumes = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def _new(self) -> HttpRequestParser:
        parser = HttpRequestParser(self._protocol)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return parser

    def feed_data(self, data: bytes) -> None:
        """Tells the protocol what a piece of requests holds. Raises HttpParserError for what is none."""
        while True:
            try:
                return self._parser.feed_data(data)
            except HttpParserUpgrade as left:
                data = data[left.args[0] :]
                self._resume()

    def _resume(self) -> None:
        start = b"POST / HTTP/" + self._protocol.scope["http_version"].encode()
        framing = [name + b": " + value for name, value in self._protocol.headers if name in _FRAMING]
        if not self._protocol.cycle.keep_alive:
            framing.append(b"connection: close")
        self._parser, self.resumes = self._new(), True
        self._parser.feed_data(b"\r\n".join([start, *framing, b"", b""]))
        self.resumes = False
