"""What vLLM's clients ask of a server beside text: lm-eval with `tokenizer_backend=remote`, and health checks."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipelines.server.routes.llama.completion import spelled
from pipelines.server.service import Service

router = APIRouter()


@router.get("/tokenizer_info")
async def tokenizer_info(request: Request) -> dict[str, Any]:
    """The special tokens by their texts; there is no chat template."""
    service: Service = request.app.state.service
    special = service.tokenizer.special
    ids = {"eos_token": special.eos, "bos_token": special.bos, "pad_token": special.pad, "unk_token": special.unknown}
    texts = {name: None if token is None else spelled(service.tokenizer, [token]) for name, token in ids.items()}
    return {"tokenizer_class": "Tokenizer", "model_max_length": service.max_length, "chat_template": None, **texts}


@router.get("/version")
async def server_version() -> dict[str, str]:
    """The version of this package."""
    try:
        return {"version": version("replit-code-max")}
    except PackageNotFoundError:
        return {"version": "unknown"}


@router.get("/ping")
@router.post("/ping", include_in_schema=False)
async def ping(request: Request) -> Response:
    """200 once the model is loaded, as SageMaker asks."""
    service: Service = request.app.state.service
    service.check_ready()
    return Response(status_code=200)
