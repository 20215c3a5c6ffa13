"""What llama.cpp's clients ask of a server beside text: its settings, tokens, slots, and templates."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from pipelines.server.http.api_error import ApiError
from pipelines.server.http.event_stream import beside
from pipelines.server.routes.admission import check_fields
from pipelines.server.routes.fields import Fields
from pipelines.server.routes.llama.completion import spelled
from pipelines.server.routes.llama.requests import DetokenizeRequest, TemplateRequest, TokenizeRequest
from pipelines.server.routes.openai.chat_completions import messages_prompt, text_size
from pipelines.server.routes.sampling import LLAMA_DEFAULTS, first
from pipelines.server.service import Service
from weights.errors import UserError

router = APIRouter()


def _service(body: Fields, request: Request) -> Service:
    service: Service = request.app.state.service
    check_fields(service, body, request.scope["replit.record"])
    return service


@router.post("/tokenize")
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """Token ids of a text, with their texts if asked for."""
    service = _service(body, request)
    tokenizer = service.tokenizer
    stated = first(body.content, body.prompt)
    if stated is None:
        raise ApiError("content: field required", param="content")
    parts = [stated] if isinstance(stated, str) else stated

    def encode() -> list[int]:
        found: list[int] = []
        for part in parts:
            found += tokenizer.encode(part, parse_special=body.parse_special) if isinstance(part, str) else [part]
        return found

    try:
        ids = await beside(sum(len(part) if isinstance(part, str) else 1 for part in parts), encode)
        if body.content is None:
            return JSONResponse({"count": len(ids), "max_model_len": service.max_length, "tokens": ids})
        if not body.with_pieces:
            return JSONResponse({"tokens": ids})
        pieces = [{"id": i, "piece": _piece(tokenizer.token_bytes(i))} for i in ids]
    except UserError as error:
        raise ApiError(str(error), param="content") from None
    return JSONResponse({"tokens": pieces})


def _piece(raw: bytes) -> str | list[int]:
    """A token's text, or its bytes where they are none, as llama.cpp does it."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return list(raw)


@router.post("/detokenize")
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """The text of token ids."""
    service = _service(body, request)

    def decode() -> str:
        return service.tokenizer.decode(service.prompt(body.tokens, "tokens").ids) if body.tokens else ""

    text = await beside(len(body.tokens), decode)
    return JSONResponse({"content": text, "prompt": text})  # vLLM's name for it


@router.post("/apply-template")
async def apply_template(body: TemplateRequest, request: Request) -> Response:
    """The prompt that a chat's messages make."""
    service = _service(body, request)
    messages = [(message.role, message.text) for message in body.messages]
    prompt = await beside(text_size(messages), lambda: messages_prompt(service, messages))
    return JSONResponse({"prompt": spelled(service.tokenizer, prompt.ids)})


@router.get("/props")
async def props(request: Request) -> Response:
    """What llama.vscode asks about the server."""
    service: Service = request.app.state.service
    settings = {name: value for name, value in LLAMA_DEFAULTS.items() if name not in _OURS} | {
        "n_predict": LLAMA_DEFAULTS["max_new_tokens"],
        "repeat_penalty": LLAMA_DEFAULTS["repetition_penalty"],
        "repeat_last_n": LLAMA_DEFAULTS["penalty_last_n"],
        "samplers": list(LLAMA_DEFAULTS["order"]),
    }
    eos = service.tokenizer.eos_token_id
    return JSONResponse(
        {
            "default_generation_settings": {"n_ctx": service.max_length, "params": settings},
            "total_slots": service.options.max_batch_size,
            "model_path": service.options.name,
            "model_alias": service.options.name,
            "modalities": {"vision": False, "audio": False},
            "chat_template": "",
            "bos_token": "",
            "eos_token": spelled(service.tokenizer, [eos])
            if (eos := service.tokenizer.eos_token_id) is not None
            else "",
            "build_info": "replit-code-max",
            "is_sleeping": False,
            "fill_in_the_middle": service.tokenizer.fim is not None,
        }
    )


_OURS = ("max_new_tokens", "repetition_penalty", "penalty_last_n", "penalize_prompt", "order")


@router.get("/slots")
async def slots(request: Request) -> Response:
    """A slot for each sequence at once. There are none: those that run are counted, not told apart."""
    service: Service = request.app.state.service
    running = min(service.worker.load.running, service.options.max_batch_size)
    return JSONResponse(
        [
            {"id": i, "n_ctx": service.max_length, "speculative": False, "is_processing": i < running}
            for i in range(service.options.max_batch_size)
        ]
    )


def model_object(service: Service) -> dict[str, Any]:
    """OpenAI's description of a model, its sequence length as vLLM and MAX tell it, and llama.cpp's figures."""
    config = service.config
    return {
        "id": service.options.name,
        "object": "model",
        "created": service.started,
        "owned_by": "replit",
        "max_model_len": service.max_length,
        "meta": {
            "vocab_type": 2,  # byte-level
            "n_vocab": config.vocab_size,
            "n_ctx_train": config.max_seq_len,
            "n_embd": config.d_model,
        },
    }


@router.get("/v1/models")
@router.get("/models", include_in_schema=False)
async def models(request: Request) -> dict[str, Any]:
    """The one model, for OpenAI's clients, llama.cpp's and those of both."""
    service: Service = request.app.state.service
    name = service.options.name
    capabilities = ["completion", *(["insert"] if service.tokenizer.fim is not None else [])]
    told = {"name": name, "model": name, "type": "model", "capabilities": capabilities}
    return {"object": "list", "data": [model_object(service)], "models": [told]}


@router.get("/v1/models/{model:path}")
@router.get("/models/{model:path}", include_in_schema=False)
async def model(model: str, request: Request) -> dict[str, Any]:
    """One model by name."""
    service: Service = request.app.state.service
    service.find_model(model)
    return model_object(service)
