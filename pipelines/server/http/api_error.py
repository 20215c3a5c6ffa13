"""Errors in the shape of the route's API: OpenAI's `{"error": {"message", "type", "param", "code"}}`, and others'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable",
}
CLIENT_LEFT = 499  # nginx's status for it; nobody receives it
# An answer's header where what follows the request's head is not read.
CLOSE = {"Connection": "close"}
LLAMA_PATHS = (
    "/completion", "/completions", "/infill", "/tokenize", "/detokenize", "/apply-template", "/props", "/slots",
)  # fmt: skip
_LLAMA_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    500: "server_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


class ApiError(Exception):
    """An answer with an error status, raised from anywhere under a route."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """`counts` are told beside the message where the API has a place for them."""
        super().__init__(message)
        self.counts = counts or {}
        # Names and values of requests may hold half characters, which no answer can.
        self.message = message.encode("utf-8", "backslashreplace").decode()
        self.status = status
        self.param = param and param.encode("utf-8", "backslashreplace").decode()
        self.code = code
        self.headers = headers

    @property
    def body(self) -> dict[str, Any]:
        """What is sent, as OpenAI has it."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def body_for(self, path: str) -> dict[str, Any]:
        """What is sent, in the shape of the API that the path belongs to."""
        if path.startswith("/api/"):
            return {"error": self.message}
        if path in LLAMA_PATHS:
            kind = _LLAMA_TYPES.get(self.status, "invalid_request_error")
            if self.code == "context_length_exceeded":
                kind = "exceed_context_size_error"
            told = {"code": self.status, "message": self.message, "type": kind, "param": self.param}
            return {"error": {**told, **self.counts}}
        return self.body

    def response(self, path: str) -> JSONResponse:
        """The whole answer to a request for this path."""
        return JSONResponse(self.body_for(path), self.status, dict(self.headers or {}))


def _unavailable(message: str, code: str, retry_after: int = 5) -> ApiError:
    """The server cannot answer now; it, or another one, may in so many seconds."""
    return ApiError(message, status=503, code=code, headers={"Retry-After": str(retry_after)})


def loading(what: str = "") -> ApiError:
    """The model is not there yet; `what` it waits for."""
    message = f"the model is still loading{f' ({what})' if what else ''}; try again in a few seconds"
    return _unavailable(message, "model_loading", retry_after=2)


def shutting_down() -> ApiError:
    """Nothing is begun any more, and what runs may be cut off."""
    return _unavailable("the server is shutting down", "shutting_down")


def stalled(seconds: float) -> ApiError:
    """Sequences wait, and the worker has not run a pass for so long."""
    message = f"the model worker has not answered for {seconds:.0f} s while sequences wait"
    return _unavailable(message, "worker_stalled")


def worker_failed() -> ApiError:
    """The generation ended because its worker did."""
    return _unavailable("the model worker has failed; the server is ending", "worker_failed")


def sequence_failed(error: str) -> ApiError:
    """One sequence ended with an error; the server and every other sequence go on."""
    return ApiError(error, status=500, code="sequence_failed")


def unreadable_json(error: BaseException) -> ApiError:
    """JSON that Python does not read: nested too deeply, or with numbers of thousands of digits."""
    if isinstance(error, RecursionError):
        reason = "it is nested too deeply"
    elif "integer string conversion" in str(error):
        reason = "a number has too many digits"
    else:
        reason = str(error)[:200]
    return ApiError(f"the body is not valid JSON: {reason}", code="invalid_json")


def from_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first of pydantic's complaints, with the field's name."""
    # Of a union's complaints, the one about the value rather than those about other types, or what is farthest inside.
    inside = max(errors, key=lambda error: len(error["loc"]))
    error = next((e for e in errors if not e["type"].endswith("_type")), inside)
    path = [str(part) for part in error["loc"] if part != "body"]
    field = path[0] if path and not path[0].isdigit() else None
    if error["type"] == "json_invalid":
        reason = error.get("ctx", {}).get("error", "")
        return ApiError(f"the body is not valid JSON: {reason}", code="invalid_json")
    if error["type"] == "too_many_items":
        return ApiError(str(error["msg"]), param=error["ctx"]["field"])
    if field is None:
        return ApiError(f"the body is not as expected: {_body(error)}")
    where = ".".join(part for part in path if not part.startswith(_UNION_PARTS) and part not in _UNION_TYPES)
    message = str(error["msg"]).removeprefix("Value error, ")
    return ApiError(f"{where}: {message[:1].lower()}{message[1:]}{_found(error)}", param=field)


def _body(error: Mapping[str, Any]) -> str:
    if error["type"] == "missing":
        return "it is empty, or null; expected a JSON object"
    sent = ", sent as application/json" if isinstance(error["input"], bytes) else ""
    return f"expected a JSON object{sent}"


# How pydantic names the branches of a union in a location.
_UNION_PARTS = ("list[", "dict[", "tuple[", "function-", "constrained-", "nullable[")
_UNION_TYPES = ("str", "int", "float", "bool")


def _found(error: Mapping[str, Any]) -> str:
    value = error.get("input")
    if error["type"] == "missing" or isinstance(value, (dict, list)):
        return ""
    return f" (found {str(value)[:80]!r})" if isinstance(value, str) else f" (found {str(value)[:80]})"
