"""What Ollama's clients ask of a server beside text: its version, and the one model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from pipelines.server.http.event_stream import as_line
from pipelines.server.routes.admission import check_fields
from pipelines.server.routes.ollama.requests import PullRequest, ShowRequest
from pipelines.server.service import Service

router = APIRouter()

# The one of Ollama's whose interface this is, which clients compare with what they need.
VERSION = "0.12.11"
# Continue takes a model for one with fill-in-the-middle where it sees `.Suffix` in its template.
_FILLS = (
    "{{- if .Suffix }}<fim_prefix>{{ .Prompt }}<fim_suffix>{{ .Suffix }}<fim_middle>{{ else }}{{ .Prompt }}{{ end }}"
)
# `expires_at` of a model that stays.
_FOR_EVER = "2318-01-01T00:00:00Z"
# Ours and Ollama's names of sampling options.
_PARAMETERS = {name: name for name in ("temperature", "top_k", "top_p", "min_p", "stop")} | {
    "max_new_tokens": "num_predict", "repetition_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty",
}  # fmt: skip
_PULLED = {"status": "success"}


@router.get("/api/version")
async def version() -> dict[str, str]:
    """The version of the interface."""
    return {"version": VERSION}


@router.get("/api/tags")
async def tags(request: Request) -> dict[str, Any]:
    """The models: one."""
    service: Service = request.app.state.service
    return {"models": [_model(service) | {"modified_at": _time(service.started), "details": details(service)}]}


@router.get("/api/ps")
async def running(request: Request) -> dict[str, Any]:
    """The models in memory: the one, once it is loaded."""
    service: Service = request.app.state.service
    if service.worker.ready is None:
        return {"models": []}
    on_gpu = service.options.device != "cpu"
    told = {
        "details": details(service),
        "expires_at": _FOR_EVER,
        "size_vram": service.facts.size if on_gpu else 0,
        "context_length": service.max_length,
    }
    return {"models": [_model(service) | told]}


@router.post("/api/pull")
async def pull(body: PullRequest, request: Request) -> Response:
    """What is to be had is there already: clients ask for the name that they are configured with."""
    service: Service = request.app.state.service
    check_fields(service, body, request.scope["replit.record"])
    service.check_model(body.model or body.name)
    if not body.stream:
        return JSONResponse(_PULLED)
    return Response(as_line(_PULLED), media_type="application/x-ndjson")


@router.post("/api/show")
async def show(body: ShowRequest, request: Request) -> dict[str, Any]:
    """What the model is and can."""
    service: Service = request.app.state.service
    check_fields(service, body, request.scope["replit.record"])
    service.check_model(body.model or body.name)
    config, family = service.config, service.facts.family
    insert = service.tokenizer.fim is not None or not service.options.strict_infill
    return {
        "modelfile": f"FROM {service.options.name}\n",
        "parameters": "\n".join(_parameters(service.options.sampling)),
        "template": _FILLS if insert else "{{ .Prompt }}",
        "details": details(service),
        "model_info": {
            "general.architecture": family,
            "general.basename": service.options.name,  # what Copilot's list of models shows
            "general.parameter_count": service.facts.parameters,
            f"{family}.context_length": service.max_length,
            f"{family}.embedding_length": config.d_model,
            f"{family}.block_count": config.n_layers,
            f"{family}.attention.head_count": config.n_heads,
            f"{family}.attention.head_count_kv": config.n_kv_heads,
            f"{family}.vocab_size": config.vocab_size,
        },
        "capabilities": ["completion", *(["insert"] if insert else [])],
        "modified_at": _time(service.started),
    }


def _parameters(stated: Mapping[str, Any]) -> Iterator[str]:
    """The sampling options given at the start, as Ollama shows a model's own."""
    for name, value in stated.items():
        if name in _PARAMETERS:
            for part in value if isinstance(value, (list, tuple)) else (value,):
                yield f"{_PARAMETERS[name]:<30} {json.dumps(part)}"


def details(service: Service) -> dict[str, Any]:
    """Ollama's summary of a model."""
    facts = service.facts
    return {
        "parent_model": "",
        "format": "gguf",
        "family": facts.family,
        "families": [facts.family],
        "parameter_size": _size(facts.parameters),
        "quantization_level": facts.encoding.upper(),
        "context_length": service.max_length,
        "embedding_length": service.config.d_model,
    }


def _model(service: Service) -> dict[str, Any]:
    name = service.options.name
    tagged = name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"
    return {"name": tagged, "model": tagged, "size": service.facts.size, "digest": service.facts.digest}


def _size(parameters: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if parameters >= size:
            return f"{parameters / size:.1f}{unit}"
    return str(parameters)


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds or time.time(), timezone.utc).isoformat().replace("+00:00", "Z")
