"""The page at `/`: its files, what it must know before it has a key, and the prompt that a request makes.

The files are what the folder page/ of the repository builds. They need no key; the requests that they make do.
"""

from __future__ import annotations

import gzip
import hashlib
import secrets
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from pipelines.server.http.api_error import ApiError
from pipelines.server.routes.openai.completions import encode_all
from pipelines.server.routes.openai.requests import CompletionRequest
from pipelines.server.routes.sampling import OPENAI_MAX_TOKENS
from pipelines.server.service import Service
from weights.tokenizers.tokenizer import Tokenizer

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parent.parent / "page"
_TYPES = {
    "page.js": "text/javascript",
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
    "LICENSES.txt": "text/plain",
}
OPEN_PATHS = ("/", "/page/state", *(f"/page/{name}" for name in _TYPES))
# Everything from this server and nothing else; styles that CodeMirror makes carry the document's nonce.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Asset:
    """A file as it is sent."""

    content: bytes
    compressed: bytes
    tag: str


@cache
def asset(name: str) -> Asset:
    """A file of the page, read once."""
    content = (FOLDER / name).read_bytes()
    return Asset(content, gzip.compress(content, mtime=0), f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def read_files() -> None:
    """Reads and compresses them, while the model loads rather than at the first visit."""
    for name in ("index.html", *_TYPES):
        asset(name)


@router.api_route("/", methods=["GET", "HEAD"])
async def document() -> Response:
    """The document. Not kept by the browser, since its nonce is for one time."""
    nonce = secrets.token_urlsafe(16)
    body = asset("index.html").content.replace(b"{{nonce}}", nonce.encode())
    headers = {**_HEADERS, "Content-Security-Policy": _POLICY.format(nonce=nonce), "Cache-Control": "no-store"}
    return Response(body, media_type="text/html", headers=headers)


@router.api_route("/page/state", methods=["GET", "HEAD"])
async def state(request: Request) -> Response:
    """Whether the model is there and the key right, never as an error: a browser would write that to its console."""
    service: Service = request.app.state.service
    try:
        service.check_ready()
        model = "ready"
    except ApiError as error:
        model = "ending" if error.code == "shutting_down" else "loading"
    body = {"model": model, "key": request.scope["replit.key"]}
    return JSONResponse(body, headers={"Cache-Control": "no-store"})


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
async def file(name: str, request: Request) -> Response:
    """A file of the page; asked for again at each visit, and answered with 304 while it is the same."""
    if name not in _TYPES:
        raise ApiError(f"there is no route {request.url.path}", status=404)
    found = asset(name)
    headers = {**_HEADERS, "Cache-Control": "no-cache", "ETag": found.tag, "Vary": "Accept-Encoding"}
    if found.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.compressed, media_type=_TYPES[name], headers=headers | {"Content-Encoding": "gzip"})
    return Response(found.content, media_type=_TYPES[name], headers=headers)


@router.post("/page/prompt")
async def prompt(body: CompletionRequest, request: Request) -> dict[str, Any]:
    """What the model reads for a request to `/v1/completions`: texts and marker tokens, in order.

    `healing` is the end of the code that was taken back, for the model to spell again.
    """
    service: Service = request.app.state.service
    service.check_ready()
    if not isinstance(body.prompt, str):
        raise ApiError("the prompt is no text; expected the code before the cursor", param="prompt")
    most = OPENAI_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    ((_, found),) = await encode_all(service, body, most)
    told = segments(service.tokenizer, found.ids)
    healing = found.healing.decode(errors="replace")
    return {"segments": told, "healing": healing, "tokens": found.tokens, "truncated": found.truncated}


def segments(tokenizer: Tokenizer, ids: list[int]) -> list[dict[str, Any]]:
    """Ids as stretches of text, and between them the marker tokens by their role."""
    roles = {tokenizer.eos_token_id: "end of text"}
    if tokenizer.fim is not None:
        fim = tokenizer.fim
        roles |= {fim.prefix: "prefix", fim.suffix: "suffix", fim.middle: "middle"}
    found = []
    for marker, group in groupby(ids, lambda token: token in tokenizer.control_token_ids):
        run = list(group)
        parts = [[token] for token in run] if marker else [run]
        for part in parts:
            text = roles.get(part[0], f"token {part[0]}") if marker else tokenizer.decode(part)
            found.append({"text": text, "tokens": len(part), "marker": marker})
    return found
