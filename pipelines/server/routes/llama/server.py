"""What llama.cpp's clients ask of a server beside text: its settings, tokens, slots, and templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from pipelines.server.http.api_error import ApiError
from pipelines.server.http.event_stream import beside
from pipelines.server.http.json_answer import Rows, json_answer
from pipelines.server.routes.admission import check_fields
from pipelines.server.routes.fields import ModelFields
from pipelines.server.routes.llama.completion import spelled
from pipelines.server.routes.llama.requests import DetokenizeRequest, TemplateRequest, TokenizeRequest
from pipelines.server.routes.llama.settings import default_settings
from pipelines.server.routes.openai.chat_completions import messages_prompt, text_size
from pipelines.server.routes.openai.requests import Message
from pipelines.server.routes.sampling import first
from pipelines.server.service import Service
from pipelines.text.chain import token_text
from weights.errors import UserError
from weights.tokenizers.tokenizer import Tokenizer

router = APIRouter()

# What /tokenize takes: more than any sequence holds, since files are counted by it; a second of work at the worst.
MOST_CHARACTERS = 1 << 20


def _service(body: ModelFields, request: Request) -> Service:
    service: Service = request.app.state.service
    service.check_model(body.model)
    check_fields(service, body, request.scope["replit.record"])
    return service


@router.post("/tokenize")
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """Token ids of a text, with their texts if asked for."""
    service = _service(body, request)
    stated = first(body.content, body.prompt)
    if stated is None and body.messages is not None:
        turns = _turns(body.messages)
        _check_size("messages", text_size(turns))
        ids = await _chat_ids(service, turns)
    elif stated is None:
        raise ApiError("content: field required", param="content")
    else:
        ids = await _ids(service, body, [stated] if isinstance(stated, str) else stated)
    if body.content is None:
        return await json_answer(_as_vllm(service, ids, body.return_token_strs))
    if not body.with_pieces:
        return await json_answer({"tokens": ids})
    tokenizer = service.tokenizer
    return await json_answer({"tokens": Rows(lambda i: {"id": i, "piece": _piece(tokenizer, i)}, ids)})


async def _ids(service: Service, body: TokenizeRequest, parts: Sequence[str | int]) -> list[int]:
    name = "prompt" if body.content is None else "content"
    size = sum(len(part) if isinstance(part, str) else 1 for part in parts)
    _check_size(name, size)

    def encode() -> list[int]:
        found: list[int] = []
        for part in parts:
            if isinstance(part, str):
                found += service.tokenizer.encode(part, parse_special=body.parse_special)
            else:
                service.tokenizer.token_bytes(part)  # raises for an unknown id
                found.append(part)
        return found

    try:
        return await beside(size, encode)
    except UserError as error:
        raise ApiError(str(error), param=name) from None


def _check_size(name: str, size: int) -> None:
    if size > MOST_CHARACTERS:
        message = f"{name} has {size} characters and ids; expected at most {MOST_CHARACTERS}: send it in parts"
        raise ApiError(message, status=413, param=name, code="text_too_long")


def _turns(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]


async def _chat_ids(service: Service, turns: list[tuple[str, str]]) -> list[int]:
    return (await beside(text_size(turns), lambda: messages_prompt(service, turns))).ids


def _as_vllm(service: Service, ids: list[int], names: bool) -> dict[str, Any]:
    texts = Rows(lambda token: token_text(service.tokenizer, token), ids) if names else None
    return {"count": len(ids), "max_model_len": service.max_length, "tokens": ids, "token_strs": texts}


def _piece(tokenizer: Tokenizer, token: int) -> str | list[int]:
    """A token's text, or its bytes where they are none, as llama.cpp does it; a control token's name."""
    raw = tokenizer.token_bytes(token)
    try:
        return raw.decode("utf-8") or tokenizer.control_texts.get(token, "")
    except UnicodeDecodeError:
        return list(raw)


@router.post("/detokenize")
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """The text of token ids, control tokens by their names."""
    service = _service(body, request)

    def decode() -> str:
        return spelled(service.tokenizer, service.prompt(body.tokens, "tokens").ids) if body.tokens else ""

    text = await beside(len(body.tokens), decode)
    return JSONResponse({"content": text, "prompt": text})  # vLLM's name for it


@router.post("/apply-template")
async def apply_template(body: TemplateRequest, request: Request) -> Response:
    """The prompt that a chat's messages make."""
    service = _service(body, request)
    ids = await _chat_ids(service, _turns(body.messages))
    return JSONResponse({"prompt": spelled(service.tokenizer, ids)})


@router.get("/props")
async def props(request: Request) -> Response:
    """What llama.vscode asks about the server."""
    service: Service = request.app.state.service
    eos = service.tokenizer.eos_token_id
    return JSONResponse(
        {
            "default_generation_settings": {"n_ctx": service.max_length, "params": default_settings(service)},
            "total_slots": service.options.max_batch_size,
            "model_path": service.options.name,
            "model_alias": service.options.name,
            "modalities": {"vision": False, "audio": False},
            "chat_template": "",
            "bos_token": "",
            "eos_token": "" if eos is None else spelled(service.tokenizer, [eos]),
            "build_info": "replit-code-max",
            "is_sleeping": False,
            "fill_in_the_middle": service.tokenizer.fim is not None,
        }
    )


@router.get("/lora-adapters")
async def adapters() -> list[Any]:
    """There are none."""
    return []


@router.get("/slots")
async def slots(request: Request) -> Response:
    """A slot for each sequence at once. There are none: those that run are counted, not told apart.

    With `?fail_on_no_slot=1` it is a 503 while all of them run.
    """
    service: Service = request.app.state.service
    running = min(service.worker.load.running_of(service.worker.in_flight), service.options.max_batch_size)
    if running == service.options.max_batch_size and request.query_params.get("fail_on_no_slot"):
        raise ApiError("no slot is free", status=503, headers={"Retry-After": "1"})
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
        "root": service.options.name,
        "parent": None,
        "max_model_len": service.max_length,
        "aliases": [service.options.name],
        "tags": [],
        "meta": {
            "vocab_type": 2,  # byte-level
            "n_vocab": config.vocab_size,
            "n_ctx": service.max_length,
            "n_ctx_train": config.max_seq_len,
            "n_embd": config.d_model,
            "n_params": service.facts.parameters,
            "size": service.facts.size,
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
