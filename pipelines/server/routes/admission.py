"""What every request for text passes first: a loaded model, its name, and the fields that have no effect."""

from __future__ import annotations

from starlette.requests import Request

from pipelines.server.http.api_error import ApiError
from pipelines.server.record import Record
from pipelines.server.routes.fields import Fields, ModelFields, unknown_fields
from pipelines.server.routes.generation_fields import GenerationFields
from pipelines.server.service import Service

# Names come from strangers: of one request so many are told, so much of each.
_MOST_NAMES = 20
_MOST_CHARACTERS = 60
# What is offered changes nothing where none of it may be chosen: no template here shows it to the model.
_TOOLS = {"tool_choice": "tools", "function_call": "functions"}


def admit(body: ModelFields, request: Request) -> tuple[Service, Record]:
    """The service and the request's record. Raises ApiError for a request that cannot be answered."""
    service: Service = request.app.state.service
    record: Record = request.scope["replit.record"]
    record.user = getattr(body, "user", None)
    service.check_ready()
    service.check_model(body.model)
    check_fields(service, body, record)
    return service, record


def check_fields(service: Service, body: Fields, record: Record) -> None:
    """Tells the fields that are ignored. Raises ApiError for one that would change the answer."""
    ignored = [*body.without_effect()]
    stated = [*unknown_fields(body)]
    choices = dict(stated)
    unused = [tools for choice, tools in _TOOLS.items() if choices.get(choice) == "none"]
    if isinstance(body, GenerationFields) and body.ignore_eos and not body.stop:
        unused.append("min_tokens")  # beside these, as benchmarks send it: no text ends before its limit
    for name, value in stated:
        if name in unused:
            continue
        neutral = body.neutral.get(name)
        if neutral is None:
            ignored.append(name)
        elif not neutral(value):
            raise ApiError(
                f"{escaped(name)} with this value would change the answer, and is not done here; leave it out",
                param=escaped(name), code="unsupported_parameter",
            )  # fmt: skip
    if not ignored:
        return
    names = [escaped(name) for name in sorted(ignored)[:_MOST_NAMES]]
    if service.options.strict_fields:
        message = f"the field {names[0]!r} is unknown or not supported; leave it out"
        raise ApiError(message, param=names[0], code="unknown_parameter")
    more = len(ignored) - len(names)
    record.headers["X-Ignored-Fields"] = ", ".join(names) + (f" and {more} more" if more else "")
    service.tell_ignored(record.route, names)


def escaped(name: str) -> str:
    """A name in printable ASCII, its end cut off where it is long; no comma, which stands between names."""
    plain = name[:_MOST_CHARACTERS].encode("unicode_escape").decode("ascii")
    plain = plain.replace(",", "\\x2c")
    return (
        plain if len(plain) <= _MOST_CHARACTERS and len(name) <= _MOST_CHARACTERS else plain[:_MOST_CHARACTERS] + "..."
    )
