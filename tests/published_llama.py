"""Cases of llama.cpp's tools/server/tests/unit, with our model's checks in the place of its tiny models' words."""

from __future__ import annotations

from typing import Any

from published_cases import Case, Group, Request, met, names, otherwise, refused
from published_elsewhere import LLAMA as ELSEWHERE

KEY = "sk-this-is-the-secret-key"
LIFE = "I believe the meaning of life is"
BOOK = [{"role": "system", "content": "Book"}, {"role": "user", "content": "What is the best book"}]
EXCLUDE = ["i", "the", "to", "a", "be", "is", "was", "but", "and", "so", "you", "he", "she", "we", "they", "it"]
INFILL = {
    "input_prefix": '#include <cstdio>\n#include "llama.h"\n\nint main() {\n',
    "prompt": "    int n_threads = llama_", "input_suffix": "}\n", "n_predict": 32,
}  # fmt: skip
COLD: dict[str, Any] = {"seed": 42, "temperature": 0.0, "n_predict": 32, "cache_prompt": False}


def completion(**fields: Any) -> dict[str, Any]:
    """A body of `/completion`."""
    return {"prompt": LIFE, "n_predict": 8} | fields


def chat(**fields: Any) -> dict[str, Any]:
    """A body of `/chat/completions`."""
    return {"messages": BOOK, "max_tokens": 8} | fields


def _whole(answer: Any, n: int, ids: bool) -> bool:
    timings = answer["timings"]
    read = timings["prompt_n"] + timings["cache_n"] == answer["tokens_evaluated"]
    return (
        read and timings["predicted_n"] == n and answer["truncated"] is False
        and isinstance(answer["has_new_line"], bool) and (len(answer["tokens"]) == n if ids else answer["tokens"] == [])
    )  # fmt: skip


def _stream(found: Any) -> bool:
    *pieces, last = found
    settings = last["generation_settings"]
    return (
        all(piece["stop"] is False and piece["tokens"] for piece in pieces) and last["stop"] is True
        and last["stop_type"] == "limit" and settings["n_predict"] == 8 and isinstance(last["has_new_line"], bool)
        and {"seed", "adaptive_target", "adaptive_decay"} <= set(settings)
    )  # fmt: skip


def _probabilities(told: Any, count: int) -> bool:
    return len(told) == count and all(
        token["id"] >= 0 and isinstance(token["token"], str) and token["logprob"] <= 0
        and isinstance(token["bytes"], list) and len(token["top_logprobs"]) == 10
        for token in told
    )  # fmt: skip


def _without(answer: Any) -> bool:
    return not any(f" {word} " in answer["content"] for word in EXCLUDE)


def _text(found: Any) -> bool:
    return bool("".join(event["choices"][0]["text"] for event in found))


def _chat_answer(answer: Any) -> bool:
    choice = answer["choices"][0]
    return (
        "cmpl" in answer["id"] and answer["system_fingerprint"].startswith("b")
        and answer["usage"]["completion_tokens"] == 8 and choice["message"]["role"] == "assistant"
        and choice["finish_reason"] == "length"
    )  # fmt: skip


def _chat_stream(found: Any) -> bool:
    ends = [event["choices"][0]["finish_reason"] for event in found]
    return len({event["id"] for event in found}) == 1 and ends == [None] * (len(found) - 1) + ["length"]


def _chat_logprobs(answer: Any) -> bool:
    choice = answer["choices"][0]
    told = choice["logprobs"]["content"]
    return "".join(token["token"] for token in told) == choice["message"]["content"] and all(
        token["logprob"] <= 0 and token["bytes"] and len(token["top_logprobs"]) == 10 for token in told
    )


BASIC = Group(
    "test_basic.py",
    (
        met("test_server_start_simple", Request("/health", check=lambda a: a == {"status": "ok"})),
        met(
            "test_server_props",
            Request("/props", check=lambda a: a["total_slots"] == 8 and a["default_generation_settings"]["n_ctx"] == 1024
                    and "seed" in a["default_generation_settings"]["params"] and a["model_path"]),
            why="each sequence may have the whole context",
        ),
        met("test_server_models", Request("/models", check=lambda a: [m["id"] for m in a["data"]] == ["nano"])),
        met(
            "test_server_slots",
            Request("/slots", check=lambda a: len(a) == 8 and a[0]["n_ctx"] == 1024 and "params" not in a[0]),
            why="there is no option that switches them off",
        ),
        met("test_no_ui", Request("/", check=lambda a: "<!doctype html>" in a.lower()), why="`--no-page` leaves it out"),
        otherwise(
            "test_server_model_aliases_and_tags", "one name, and no tags",
            Request("/models", check=lambda a: a["data"][0]["aliases"] == ["nano"] and a["data"][0]["tags"] == []),
        ),
    ),
    names("test_server_multiple_addresses test_load_split_model"),
    "one address; models are loaded by our own formats (docs/models.md)",
)  # fmt: skip

COMPLETION = Group(
    "test_completion.py",
    (
        met("test_completion[8]", Request("/completion", completion(), lambda a: _whole(a, 8, False))),
        met(
            "test_completion[64, return_tokens]",
            Request("/completion", completion(n_predict=64, return_tokens=True, ignore_eos=True),
                    lambda a: _whole(a, 64, True)),
        ),
        met("test_completion_stream", Request("/completion", completion(stream=True, ignore_eos=True), _stream)),
        met("test_completion_stream_vs_non_stream", why="tests/test_server_clients.py compares the texts"),
        met(
            "test_completion_with_openai_library",
            Request("/v1/completions", {"model": "davinci-002", "prompt": LIFE, "max_tokens": 8},
                    lambda a: a["system_fingerprint"].startswith("b") and a["choices"][0]["finish_reason"] == "length"),
        ),
        met(
            "test_completion_stream_with_openai_library",
            Request("/v1/completions", {"model": "davinci-002", "prompt": LIFE, "max_tokens": 8, "stream": True}, _text),
        ),
        met(
            "test_completion_stream_with_openai_library_stops",
            Request("/v1/completions", {"prompt": "User:\nx\n", "stop": ["User:\n", "Assistant:\n"], "max_tokens": 200,
                                        "stream": True}, lambda found: "User:\n" not in str(found)),
        ),
        met("test_consistent_result_same_seed", Request("/completion", completion(**COLD)),
            why="tests/test_same_bits.py: the same bits in every batch"),
        met("test_different_result_different_seed",
            Request("/completion", completion(n_predict=64, seed=1, temperature=1.0, cache_prompt=False))),
        met("test_consistent_result_different_batch_size", why="tests/test_same_bits.py"),
        met("test_cache_vs_nocache_prompt", why="tests/test_server_completions.py (llama.cpp skips it)"),
        met("test_nocache_long_input_prompt", Request("/completion", completion(prompt=LIFE * 320), status=400)),
        met("test_json_prompt_no_mtmd", Request("/completion", completion(prompt={"prompt_string": LIFE}))),
        otherwise(
            "test_json_prompt_mtm_error_when_not_supported", "a field that is not known is ignored; there are no images",
            Request("/completion", completion(prompt={"prompt_string": LIFE, "media": "x"})),
        ),
        met(
            "test_completion_with_tokens_input",
            Request("/completion", completion(prompt=[5, 6, 7]), lambda a: isinstance(a["content"], str)),
            Request("/completion", completion(prompt=[[5, 6, 7], [5, 6, 7]], temperature=0),
                    lambda a: a[0]["content"] == a[1]["content"]),
            Request("/completion", completion(prompt=[[5, 6], LIFE, {"prompt_string": LIFE}], temperature=0),
                    lambda a: len(a) == 3 and a[1]["content"] == a[2]["content"]),
            Request("/completion", completion(prompt=[1, 2, 3, 4, 5, 6, LIFE, 7, 8, 9, 10, LIFE]),
                    lambda a: isinstance(a["content"], str)),
        ),
        met("test_completion_parallel_slots", why="tests/test_server_soak.py, test_server_waiting.py"),
        otherwise("test_completion_unified", "sequences wait for room or are read again later; none is aborted",
                  Request("/completion", completion(prompt="A", n_predict=80))),
        met(
            "test_completion_response_fields",
            Request("/completion", completion(response_fields=[]), lambda a: "generation_settings" in a),
            Request("/completion",
                    completion(response_fields=["content", "generation_settings/n_predict", "prompt"]),
                    lambda a: (len(a), a["generation_settings/n_predict"], a["prompt"]) == (3, 8, LIFE)),
        ),
        met("test_n_probs", Request("/completion", completion(n_probs=10, temperature=0, n_predict=5, ignore_eos=True),
                                    lambda a: _probabilities(a["completion_probabilities"], 5))),
        met(
            "test_n_probs_stream",
            Request("/completion", completion(n_probs=10, temperature=0, n_predict=5, ignore_eos=True, stream=True),
                    lambda found: _probabilities([t for e in found[:-1] for t in e["completion_probabilities"]], 5)),
        ),
        refused("test_n_probs_post_sampling", "/completion", completion(n_probs=10, post_sampling_probs=True),
                "post_sampling_probs"),
        refused("test_n_probs_post_backend_sampling", "/completion",
                completion(n_probs=10, post_sampling_probs=True, backend_sampling=True), "post_sampling_probs"),
        met("test_logit_bias[texts]", Request("/completion", completion(
            n_predict=64, temperature=0, logit_bias=[[f" {word} ", -100] for word in EXCLUDE]), _without)),
        met("test_logit_bias[texts, OpenAI's]", Request("/completion", completion(
            n_predict=64, temperature=0, logit_bias={f" {word} ": -100 for word in EXCLUDE}), _without)),
        met("test_logit_bias[ids]", Request("/completion", completion(logit_bias=[[5, -100], [6, False]]))),
        met("test_logit_bias[ids, OpenAI's]", Request("/completion", completion(logit_bias={"5": -100}))),
        met("test_cancel_request", why="tests/test_server_waiting.py, test_server_operations.py"),
        met("test_completion_prompt_cache",
            Request("/completion", completion(prompt=" Hello 3" * 40, n_predict=3), lambda a: _whole(a, 3, False))),
    ),
)  # fmt: skip

OTHERS: tuple[Group, ...] = (
    Group(
        "test_infill.py",
        (
            met("test_infill_without_input_extra", Request("/infill", INFILL, lambda a: "content" in a)),
            met("test_infill_with_input_extra", Request("/infill", INFILL | {
                "input_extra": [{"filename": "llama.h", "text": "LLAMA_API int32_t llama_n_threads();\n"}]})),
            *(
                met(f"test_invalid_input_extra_req[{extra}]",
                    Request("/infill", INFILL | {"input_extra": [extra]}, lambda a: "error" in a, 400))
                for extra in ({}, {"filename": "ok"}, {"filename": 123}, {"filename": 123, "text": "abc"},
                              {"filename": 123, "text": 456})
            ),
        ),
        names("test_with_qwen_model"), "of another model",
    ),
    Group(
        "test_tokenize.py",
        (
            met("test_tokenize_detokenize",
                Request("/tokenize", {"content": "What is the capital of France ?"}, lambda a: len(a["tokens"]) > 5),
                Request("/detokenize", {"tokens": [504, 295, 12]}, lambda a: a["content"] == "def f(")),
            otherwise("test_tokenize_with_bos", "the models of this family begin with no token of their own",
                      Request("/tokenize", {"content": "def f(", "add_special": True},
                              lambda a: a["tokens"] == [504, 295, 12])),
            met("test_tokenize_with_pieces", Request(
                "/tokenize", {"content": "This is a test string with unicode 媽 and emoji 🤗", "with_pieces": True},
                lambda a: all(token["id"] > 0 and token["piece"] for token in a["tokens"]))),
        ),
    ),
    Group(
        "test_ctx_shift.py",
        (
            met("test_ctx_shift_disabled_short_prompt[64]", Request(
                "/completion", {"prompt": "Hi how are you", "n_predict": 64, "ignore_eos": True},
                lambda a: a["timings"]["predicted_n"] == 64 and not a["truncated"])),
            met("test_ctx_shift_disabled_short_prompt[-1]", Request(
                "/completion", {"prompt": [5] * 1000, "n_predict": -1, "ignore_eos": True},
                lambda a: a["timings"]["predicted_n"] == 24 and a["truncated"])),
            met("test_ctx_shift_disabled_long_prompt", Request(
                "/completion", {"prompt": "x " * 3000}, status=400, said="exceed_context_size_error"),
                why="the message has our own words"),
            met("test_ctx_shift_disabled_stream", Request(
                "/v1/completions", {"prompt": "Once", "n_predict": 256, "stream": True}, _text)),
        ),
        names("test_ctx_shift_enabled"), "no context is shifted",
    ),
    Group(
        "test_ignore_eos.py",
        (
            met("test_ignore_eos_populates_logit_bias", Request(
                "/completion", completion(ignore_eos=True),
                lambda a: [b["bias"] for b in a["generation_settings"]["logit_bias"]] == [None])),
            met("test_ignore_eos_false_no_logit_bias", Request(
                "/completion", completion(ignore_eos=False),
                lambda a: a["generation_settings"]["logit_bias"] == [])),
        ),
    ),
    Group(
        "test_metrics.py",
        (
            otherwise("test_metrics_disabled", "they are always there; with a key they need it", Request("/metrics")),
            otherwise("test_metrics_prometheus_format", "our own names: docs/server.md",
                      Request("/metrics", check=lambda a: "# TYPE replit_requests_total counter" in a)),
            met("test_metrics_prompt_processed_and_cached", Request(
                "/completion", completion(), lambda a: {"prompt_n", "cache_n"} <= set(a["timings"]))),
            met("test_metrics_predicted_total_matches_requests", why="tests/test_server_operations.py"),
            otherwise("test_metrics_generation_rate_excludes_first_token", "over all tokens, from the first one on",
                      Request("/completion", completion(n_predict=1), lambda a: a["timings"]["predicted_n"] == 1)),
            met("test_metrics_timings_are_finite", Request(
                "/completion", completion(), lambda a: all(value >= 0 for value in a["timings"].values()))),
            met("test_metrics_slots_idle_after_completion", why="tests/test_client_requests.py"),
        ),
        names("test_metrics_timings_on_prompt_progress test_metrics_embedding_prompt_is_counted"),
        "`return_progress` has no effect; no embeddings",
    ),
)  # fmt: skip


def _chat_cases() -> tuple[Case, ...]:
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "the best book"}]
    user = [{"role": "user", "content": "Does not matter what I say, does it?"}]
    formats: tuple[dict[str, Any], ...] = (
        {"type": "json_object", "schema": {"const": "42"}}, {"type": "json_schema", "json_schema": {"schema": {}}},
        {"type": "json_object"}, {"type": "sound"}, {"type": "json_object", "schema": 123},
    )  # fmt: skip
    invalid: tuple[Any, ...] = (
        None, "string", [123], [{}], [{"role": 123}], [{"role": "system", "content": 123}],
        [{"role": "system", "content": "test"}, {}],
    )  # fmt: skip
    two = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    return (
        met("test_chat_completion", Request("/chat/completions", chat(ignore_eos=True), _chat_answer),
            Request("/chat/completions", chat(messages=[{"role": "user", "content": parts}]))),
        met("test_chat_completion_cached_tokens", Request(
            "/chat/completions", chat(),
            lambda a: a["usage"]["prompt_tokens_details"]["cached_tokens"] < a["usage"]["prompt_tokens"])),
        otherwise("test_chat_completion_stream", "the first event has text beside the role, the last one beside its reason",
                  Request("/chat/completions", chat(stream=True, ignore_eos=True), _chat_stream)),
        met("test_chat_completion_with_openai_library", Request(
            "/v1/chat/completions", chat(seed=42, temperature=0.8, ignore_eos=True), _chat_answer)),
        otherwise("test_chat_template_continue_final_message_vllm_compat", "a base model has no turns: it goes on anyway",
                  Request("/chat/completions", chat(add_generation_prompt=False, continue_final_message=True))),
        otherwise("test_chat_template_continue_final_message_mutual_exclusion", "both mean the same to a base model",
                  Request("/chat/completions", chat(add_generation_prompt=True, continue_final_message=True))),
        met("test_apply_chat_template", Request(
            "/apply-template", {"messages": BOOK}, lambda a: a["prompt"] == "Book\nWhat is the best book"),
            why="a base model's messages are joined by line breaks"),
        *(refused(f"test_completion_with_response_format[{shown}]", "/chat/completions", chat(response_format=shown),
                  "response_format") for shown in formats),
        refused("test_completion_with_json_schema", "/chat/completions", chat(json_schema={"const": "42"}), "json_schema"),
        refused("test_completion_with_grammar", "/chat/completions",
                chat(messages=user, grammar='root ::= "a"{5,5}'), "grammar"),
        met("test_completion_with_invalid_grammar", Request(
            "/chat/completions", chat(grammar="root ::= this is (not valid GBNF"), status=400, said="grammar")),
        *(met(f"test_invalid_chat_completion_req[{messages}]", Request(
            "/chat/completions", {"messages": messages}, lambda a: "error" in a, 400)) for messages in invalid),
        otherwise("test_invalid_chat_completion_req[two of the assistant's]", "nothing forbids it",
                  Request("/chat/completions", {"messages": [*two, two[1]], "max_tokens": 1})),
        met("test_chat_completion_with_timings_per_token", Request(
            "/chat/completions", chat(max_tokens=10, timings_per_token=True, stream=True),
            lambda found: all(event["timings"]["predicted_n"] <= 10 for event in found))),
        met("test_logprobs", Request("/v1/chat/completions", chat(
            temperature=0, max_tokens=5, logprobs=True, top_logprobs=10), _chat_logprobs)),
        met("test_logprobs_stream", Request(
            "/v1/chat/completions", chat(temperature=0, max_tokens=5, logprobs=True, top_logprobs=10, stream=True),
            lambda found: sum(len(e["choices"][0]["logprobs"]["content"]) for e in found) == 5)),
        met("test_logit_bias", Request("/v1/chat/completions", chat(logit_bias={"5": -100, "6": -100}))),
        otherwise("test_context_size_exceeded", "OpenAI's shape: `code` says it, both numbers are in the message",
                  Request("/chat/completions", {"messages": BOOK * 200}, status=400, said="context_length_exceeded")),
        otherwise("test_context_size_exceeded_stream", "the same", Request(
            "/chat/completions", {"messages": BOOK * 200, "stream": True}, status=400, said="context_length_exceeded")),
        otherwise("test_return_progress", "`return_progress` has no effect", Request(
            "/chat/completions", chat(return_progress=True, stream=True))),
        met("test_chat_completions_multiple_choices", Request(
            "/chat/completions", chat(n=2, id_slot=0, ignore_eos=True),
            lambda a: [c["finish_reason"] for c in a["choices"]] == ["length", "length"])),
        met("test_chat_completions_token_count", Request(
            "/chat/completions/input_tokens", {"messages": BOOK}, lambda a: a["input_tokens"] > 5)),
        otherwise("test_verbose_debug", "`verbose` has no effect: `/apply-template` shows the prompt",
                  Request("/chat/completions", chat(verbose=True), lambda a: "__verbose" not in a)),
    )  # fmt: skip


CHAT = Group(
    "test_chat_completion.py", _chat_cases(),
    names("test_chat_template test_chat_template_assistant_prefill"), "no chat templates: a base model",
)  # fmt: skip


def _preflight(origin: str, check: str) -> Request:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "Authorization",
    }
    return Request("/completions", method="OPTIONS", headers=asked, said=check)


_BEARER = {"Authorization": f"Bearer {KEY}"}
SECURITY = Group(
    "test_security.py",
    (
        met("test_access_public_endpoint", Request("/health", check=lambda a: "error" not in a)),
        met("test_access_static_assets_without_api_key", Request("/"), why="its own page, of one file and a few more"),
        *(met(f"test_incorrect_api_key[{key}]", Request(
            "/completions", completion(), lambda a: a["error"]["type"] == "authentication_error", 401,
            headers={"Authorization": f"Bearer {key}"} if key else {})) for key in (None, "invalid-key")),
        met("test_correct_api_key", Request("/completions", completion(), lambda a: "content" in a, headers=_BEARER)),
        met("test_correct_api_key_anthropic_header",
            Request("/completions", completion(), lambda a: "content" in a, headers={"X-Api-Key": KEY})),
        met("test_openai_library_correct_api_key",
            Request("/chat/completions", chat(), lambda a: len(a["choices"]) == 1, headers=_BEARER)),
        met("test_cors_options", _preflight("web.mydomain.fr", "OK"), why="for the origins of `--cors-origin`"),
        otherwise("test_cors_origins_localhost_reflects", "each origin is named, with its port: docs/security.md",
                  Request("/health", check=lambda a: True)),
        met("test_cors_origins_localhost_rejects",
            Request("/completions", method="OPTIONS", status=400, said="Disallowed CORS origin",
                    headers={"Origin": "http://evil.com", "Access-Control-Request-Method": "POST"})),
    ),
    names("test_cors_origins_defaults_to_localhost_with_tools_enabled "
          "test_cors_proxy_only_forwards_explicit_proxy_headers test_local_media_file"),
    "no tools, no proxy, no media",
)  # fmt: skip

# Routes of things that are not here say so.
ABSENT = Group(
    "(routes)",
    tuple(
        refused(f"{path}", path, {"input": "x", "messages": BOOK, "prompt": "x"}, "there is no route", status=404)
        for path in (
            "/v1/embeddings",
            "/embedding",
            "/v1/rerank",
            "/v1/responses",
            "/v1/messages",
            "/v1/messages/count_tokens",
        )
    ),
)
GROUPS = (BASIC, COMPLETION, *OTHERS, CHAT, SECURITY, ABSENT, *ELSEWHERE)
