"""What HTTP clients do that a framework refuses: HEAD, a slash too many in a path, bodies without a content type.

An address that ends with a slash and a route that begins with one are joined to two by most plugins.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

JSON = b"application/json"


class ClientHabits:
    """Around everything else: what is behind it sees the request as it would have been written with care.

    A browser sends a body of another type to any server without asking it first, so the type is overlooked only where
    no page has sent it: there is no `Origin`, or one of `origins`.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] == "http":
            scope = dict(scope)  # the server below keeps its own: it leaves out the body of an answer to HEAD
            if scope["method"] == "HEAD":
                scope["method"] = "GET"
            if "//" in scope["path"] or (scope["path"] != "/" and scope["path"].endswith("/")):
                scope["path"] = "/" + "/".join(filter(None, scope["path"].split("/")))
            if scope["method"] == "POST":
                scope["headers"] = self._with_type(scope["headers"])
        await self._app(scope, receive, send)

    def _with_type(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        found = dict(headers)
        origin = found.get(b"origin")
        trusted = origin is None or "*" in self._origins or origin.decode("latin-1") in self._origins
        kind = found.get(b"content-type", b"").split(b";")[0].strip().lower()
        if not trusted or kind == JSON or kind.endswith(b"+json"):
            return headers
        return [*((name, value) for name, value in headers if name != b"content-type"), (b"content-type", JSON)]
