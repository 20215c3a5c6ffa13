"""Cases of vLLM's tests/entrypoints, for our model: its text and lengths in the place of theirs."""

from __future__ import annotations

from typing import Any

from published_cases import Case, Group, Request, met, names, otherwise, refused
from published_elsewhere import VLLM as ELSEWHERE

NAME = "Hello, my name is"
IDS = [5, 5, 5, 5, 5]
ONE = [{"role": "system", "content": "you are a helpful assistant"}, {"role": "user", "content": "what is 1+1?"}]
COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"


def completion(**fields: Any) -> dict[str, Any]:
    """A body of `/v1/completions`."""
    return {"model": "nano", "prompt": NAME, "max_tokens": 5, "temperature": 0.0, "ignore_eos": True} | fields


def chat(**fields: Any) -> dict[str, Any]:
    """A body of `/v1/chat/completions`."""
    return {"model": "nano", "messages": ONE, "max_completion_tokens": 5, "ignore_eos": True} | fields


def _single(answer: Any) -> bool:
    usage, (choice,) = answer["usage"], answer["choices"]
    return (
        choice["finish_reason"] == "length" and usage["completion_tokens"] == 5
        and usage["total_tokens"] == usage["prompt_tokens"] + 5 and "cached_tokens" in usage["prompt_tokens_details"]
    )  # fmt: skip


def _tops(least: int, most: int) -> Any:
    return lambda answer: all(least <= len(top) <= most for top in answer["choices"][0]["logprobs"]["top_logprobs"])


def _chat_tops(count: int) -> Any:
    return lambda answer: all(
        len(token["top_logprobs"]) == count for token in answer["choices"][0]["logprobs"]["content"]
    )


def _ends(found: Any) -> bool:
    ends = [event["choices"][0]["finish_reason"] for event in found]
    return ends == [None] * (len(found) - 1) + ["length"]


def _choices(n: int) -> Any:
    return lambda answer: [choice["index"] for choice in answer["choices"]] == list(range(n))


def _usage(in_each: bool, at_end: bool) -> Any:
    def check(found: Any) -> bool:
        *pieces, last = found
        told = [event.get("usage") is not None for event in (pieces if at_end else found)]
        return set(told) == {in_each} and (not at_end or (last["choices"] == [] and last["usage"]["total_tokens"] > 0))

    return check


def _stream_options(path: str, body: dict[str, Any]) -> tuple[Request, ...]:
    def asked(options: dict[str, bool], in_each: bool, at_end: bool) -> Request:
        return Request(path, body | {"stream": True, "stream_options": options}, _usage(in_each, at_end))

    return (
        asked({"include_usage": False, "continuous_usage_stats": False}, False, False),
        asked({"include_usage": False, "continuous_usage_stats": True}, False, False),
        asked({"include_usage": True, "continuous_usage_stats": False}, False, True),
        asked({"include_usage": True, "continuous_usage_stats": True}, True, True),
        asked({}, False, False),
        Request(path, body | {"stream_options": {"include_usage": True}}, status=400, said="stream_options"),
        Request(path, body | {"stream_options": {"continuous_usage_stats": True}}, status=400, said="stream_options"),
    )


def _echoed(logprobs: int, prompt: Any) -> Request:
    def check(answer: Any) -> bool:
        told = answer["choices"][0]["logprobs"]
        sizes = [len(top) for top in told["top_logprobs"][1:]]
        return (
            told["token_logprobs"][0] is None and told["top_logprobs"][0] is None and len(told["text_offset"]) > 5
            and all(max(logprobs, 1) <= size <= logprobs + 1 for size in sizes)
        )  # fmt: skip

    return Request(COMPLETIONS, completion(prompt=prompt, echo=True, logprobs=logprobs), check)


def _ids(answer: Any) -> bool:
    (choice,) = answer["choices"]
    return [f"token_id:{token}" for token in choice["token_ids"]] == choice["logprobs"]["tokens"][
        -len(choice["token_ids"]) :
    ]


STRUCTURED = {"structured_outputs": {"regex": "[.*"}}
COMPLETION = Group(
    "openai/completion/test_completion.py",
    (
        met("test_single_completion", Request(COMPLETIONS, completion(), _single),
            Request(COMPLETIONS, completion(prompt=IDS), _single)),
        refused("test_completion_truncation_side_controls_prompt_truncation", COMPLETIONS,
                completion(truncate_prompt_tokens=4), "truncate_prompt_tokens"),
        met("test_no_logprobs", Request(COMPLETIONS, completion(prompt=IDS, logprobs=None),
                                        lambda a: a["choices"][0]["logprobs"] is None)),
        met("test_zero_logprobs", Request(COMPLETIONS, completion(prompt=IDS, logprobs=0), _tops(1, 1))),
        met("test_some_logprobs", Request(COMPLETIONS, completion(prompt=IDS, logprobs=5), _tops(5, 6))),
        refused("test_logprob_token_ids", COMPLETIONS, completion(logprobs=5, allowed_token_ids=[42]),
                "allowed_token_ids"),
        refused("test_logprob_token_ids_stream", COMPLETIONS,
                completion(logprobs=5, allowed_token_ids=[42], stream=True), "allowed_token_ids"),
        met("test_too_many_completion_logprobs",
            Request(COMPLETIONS, completion(logprobs=21), status=400, said="logprobs"),
            Request(COMPLETIONS, completion(logprobs=30, stream=True), status=400, said="logprobs"),
            Request(COMPLETIONS, completion())),
        refused("test_prompt_logprobs_completion", COMPLETIONS, completion(prompt_logprobs=1), "prompt_logprobs",
                "`prompt_logprobs` is refused by name; `echo` with `logprobs` tells them"),
        met("test_completion_streaming", Request(COMPLETIONS, completion(stream=True), _ends)),
        met("test_parallel_no_streaming", Request(COMPLETIONS, completion(
            n=3, temperature=1.0, logprobs=0, seed=42, max_tokens=20),
            lambda a: len({choice["text"] for choice in a["choices"]}) == 3)),
        met("test_parallel_streaming", Request(COMPLETIONS, completion(n=3, temperature=1.0, stream=True, seed=42),
            lambda found: {event["choices"][0]["index"] for event in found} == {0, 1, 2})),
        met("test_completion_stream_options", *_stream_options(COMPLETIONS, completion())),
        met("test_batch_completions",
            *(Request(COMPLETIONS, completion(prompt=prompts),
                      lambda a: a["choices"][0]["text"] == a["choices"][1]["text"]) for prompts in ([NAME] * 2, [IDS] * 2)),
            Request(COMPLETIONS, completion(prompt=[NAME] * 2, n=2), _choices(4)),
            Request(COMPLETIONS, completion(use_beam_search=True), status=400, said="use_beam_search"),
            why="but for beams, refused by name"),
        met("test_echo_logprob_completion",
            *(_echoed(count, prompt) for count in (1, 0) for prompt in (NAME, IDS))),
        *(refused(f"{name}", COMPLETIONS, completion(**STRUCTURED), "structured_outputs")
          for name in names("test_invalid_json_schema test_invalid_regex test_invalid_grammar")),
        refused("test_completion_request_bad_words_to_sampling_params", COMPLETIONS, completion(bad_words=["foo"]),
                "bad_words"),
        met("test_completion_request_bad_words_default_empty", Request(COMPLETIONS, completion(bad_words=[]))),
    ),
    names("test_completion_request_forwards_routed_experts_prompt_start"), "no experts",
)  # fmt: skip

ERRORS = Group(
    "openai/completion/test_completion_error.py",
    (
        met("test_completion_suffix_uses_renderer_capability", Request(COMPLETIONS, completion(
            prompt="def fib(n):\n    return ", suffix="\n\nprint(fib(10))"))),
        met("test_completion_suffix_supports_text_prompt_list", Request(COMPLETIONS, completion(
            prompt=["prefix A", "prefix B"], suffix=" suffix"), _choices(2))),
        otherwise("test_completion_suffix_rejects_renderer_without_fim_support",
                  "a model without it continues the prefix; 501 with `--strict-infill`", Request("/health")),
        met("test_completion_suffix_rejects_echo", Request(
            COMPLETIONS, completion(suffix="x", echo=True), status=400, said="echo")),
        otherwise("test_completion_suffix_rejects_token_prompt", "ids before a gap are read as their text",
                  Request(COMPLETIONS, completion(prompt=[504, 295, 12], suffix=")"))),
        met("test_json_schema_response_format_missing_schema", Request(
            COMPLETIONS, completion(response_format={"type": "json_schema"}), status=400, said="response_format")),
        met("test_negative_prompt_token_ids_nested", Request(
            COMPLETIONS, completion(prompt=[[-1]]), status=400, said="greater than or equal to 0")),
        met("test_negative_prompt_token_ids_flat", Request(
            COMPLETIONS, completion(prompt=[-1]), status=400, said="greater than or equal to 0")),
        refused("test_logprobs_minus_one_allowed", COMPLETIONS, completion(logprobs=-1), "logprobs", "at most 20"),
        met("test_completion_logprobs_honors_requested_count", Request(
            COMPLETIONS, completion(logprobs=3), _tops(3, 4))),
        met("test_logprobs_below_minus_one_rejected", Request(
            COMPLETIONS, completion(logprobs=-2), status=400, said="logprobs")),
        met("test_scalar_prompt_allowed", Request(COMPLETIONS, completion(prompt="hello"))),
        met("test_single_token_list_allowed", Request(COMPLETIONS, completion(prompt=[1, 2, 3]))),
        met("test_bounded_text_prompt_list_allowed", Request(COMPLETIONS, completion(prompt=["a", "b", "c"]))),
        met("test_bounded_token_id_prompt_list_allowed", Request(COMPLETIONS, completion(prompt=[[1], [2], [3]]))),
        met("test_oversized_text_prompt_list_rejected", Request(
            COMPLETIONS, completion(prompt=["x"] * 40), status=400, said="at most 32")),
        met("test_oversized_token_id_prompt_list_rejected", Request(
            COMPLETIONS, completion(prompt=[[1]] * 40), status=400, said="at most 32")),
        met("test_exact_limit_allowed", Request(COMPLETIONS, completion(prompt=["x"] * 16, max_tokens=1), _choices(16))),
        met("test_one_over_limit_rejected", Request(
            COMPLETIONS, completion(prompt=["x"] * 33), status=400, said="at most 32")),
        met("test_non_numeric_logprobs_rejected", Request(
            COMPLETIONS, completion(logprobs="five"), status=400, said="logprobs")),
    ),
    names("test_beam_search_preserves_request_priority test_beam_search_echo_logprobs_rejected "
          "test_completion_per_request_metrics_follow_server_flag test_completion_weight_versions "
          "test_completion_per_request_metrics_suppressed_for_multiple_prompts "
          "test_completion_spec_decode_metrics_present_for_single_sequence "
          "test_completion_spec_decode_metrics_suppressed_for_n_gt_1 "
          "test_completion_spec_decode_metrics_absent_when_not_collected "
          "test_completion_metrics_carries_both_timing_and_spec_decode test_completion_suffix_rejects_prompt_embeds "
          "test_completion_error_non_stream test_openai_completion_keeps_mm_cache_for_engine_execution "
          "test_renderer_only_completion_request_skips_mm_cache test_completion_logs_outputs_when_enabled "
          "test_completion_error_stream test_completion_error_stream_first_chunk "
          "test_structural_tag_response_format_invalid test_structured_outputs_structural_tag_invalid "
          "test_oversized_prompt_embeds_list_rejected test_bounded_prompt_embeds_list_allowed"),
    "inside vLLM, or of beams, vectors and grammars",
)  # fmt: skip


def _chat_cases() -> tuple[Case, ...]:
    parts = [{"role": "user", "content": [{"type": "text", "text": "what is 1+1?"}]}]
    three = chat(n=3, temperature=1.0, seed=42, max_completion_tokens=20)
    return (
        met("test_no_logprobs_chat", Request(CHATS, chat(logprobs=False), lambda a: a["choices"][0]["logprobs"] is None)),
        met("test_zero_logprobs_chat", Request(CHATS, chat(logprobs=True, top_logprobs=0), _chat_tops(0))),
        met("test_some_logprobs_chat", Request(CHATS, chat(logprobs=True, top_logprobs=5), _chat_tops(5))),
        met("test_too_many_chat_logprobs", Request(
            CHATS, chat(logprobs=True, top_logprobs=21), status=400, said="top_logprobs")),
        refused("test_prompt_logprobs_chat", CHATS, chat(prompt_logprobs=1), "prompt_logprobs"),
        refused("test_more_than_one_prompt_logprobs_chat", CHATS, chat(prompt_logprobs=2), "prompt_logprobs"),
        met("test_single_chat_session", Request(
            CHATS, chat(logprobs=True, top_logprobs=5), lambda a: a["choices"][0]["finish_reason"] == "length"),
            Request(CHATS, chat(messages=[*ONE, {"role": "assistant", "content": "2"}, ONE[1]]))),
        met("test_chat_streaming", Request(CHATS, chat(stream=True, temperature=0), _ends)),
        met("test_chat_completion_stream_options", *_stream_options(CHATS, chat())),
        *(refused(name, CHATS, chat(structured_outputs={"choice": ["a"]}), "structured_outputs") for name in names(
            "test_structured_outputs_choice_chat test_structured_outputs_json_chat test_structured_outputs_regex_chat "
            "test_structured_outputs_type_error test_structured_outputs_choice_chat_logprobs")),
        refused("test_response_format_json_object", CHATS, chat(response_format={"type": "json_object"}),
                "response_format"),
        refused("test_response_format_json_schema", CHATS, chat(response_format={"type": "json_schema"}),
                "response_format"),
        met("test_response_format_text", Request(CHATS, chat(response_format={"type": "text"}))),
        met("test_extra_fields_allowed", Request(CHATS, chat(messages=[ONE[1] | {"extra_field": "0"}]))),
        met("test_complex_message_content", Request(CHATS, chat(messages=parts))),
        refused("test_custom_role", CHATS, chat(messages=[{"role": "my-custom-role", "content": "x"}]), "role",
                "OpenAI's roles, so that a misspelled one is told"),
        met("test_long_seed", Request(CHATS, chat(seed=-(2**63) - 1), status=400, said="seed"),
            Request(CHATS, chat(seed=2**64), status=400, said="seed"), why="seeds have 64 bits, with or without a sign"),
        met("test_chat_completion_n_parameter_non_streaming", Request(
            CHATS, three, lambda a: len({choice["message"]["content"] for choice in a["choices"]}) == 3)),
        met("test_chat_completion_n_parameter_streaming", Request(
            CHATS, three | {"stream": True}, lambda found: {e["choices"][0]["index"] for e in found} == {0, 1, 2})),
        met("test_chat_completion_n_with_seed", Request(CHATS, three, _choices(3))),
        met("test_chat_completion_n_equals_1", Request(CHATS, chat(n=1), _choices(1))),
        met("test_null_top_logprobs_is_same_as_omitted", Request(CHATS, chat(top_logprobs=None))),
        otherwise("test_chat_completion_request_accepts_model_specific_reasoning_effort", "ignored: no reasoning",
                  Request(CHATS, chat(reasoning_effort="low"))),
        met("test_chat_completion_request_n_parameter_exceeds_default_limit", Request(
            CHATS, chat(n=129), status=400, said="less than or equal to 128")),
        met("test_chat_completion_request_n_parameter_massive_value", Request(
            CHATS, chat(n=10**9), status=400, said="n:")),
        refused("test_invocations", "/invocations", chat(), "there is no route", status=404),
    )  # fmt: skip


OTHERS = (
    Group(
        "openai/chat_completion/test_chat.py", _chat_cases(),
        names("test_chat_completion_request_n_parameter_to_sampling_params "
              "test_chat_completion_request_n_parameter_default test_chat_completion_request_n_parameter_various_values "
              "test_chat_completion_request_n_parameter_at_limit test_chat_completion_request_n_parameter_custom_limit "
              "test_chat_completion_request_rejects_unknown_reasoning_effort"), "inside vLLM",
    ),
    Group(
        "openai/chat_completion/test_chat_completion.py",
        (*(refused(name, CHATS, chat(**STRUCTURED), "structured_outputs") for name in names(
            "test_invalid_json_schema test_invalid_regex test_invalid_grammar test_empty_grammar")),),
        names("test_kv_transfer_prompt_token_ids_round_trip test_kv_transfer_prompt_token_ids_streaming "
              "test_per_request_metrics_non_streaming test_per_request_metrics_on_final_usage_chunk"),
        "caches of several machines; metrics are at `/metrics`",
    ),
    Group(
        "openai/chat_completion/test_chat_echo.py",
        (
            otherwise("test_chat_session_with_echo_and_continue_final_message", "`echo` is for completions; ignored in chats",
                      Request(CHATS, chat(continue_final_message=True, add_generation_prompt=False))),
            refused("test_prompt_logprobs", CHATS, chat(prompt_logprobs=-1), "prompt_logprobs"),
            refused("test_top_logprobs", CHATS, chat(logprobs=True, top_logprobs=-1), "top_logprobs", "at most 20"),
        ),
    ),
    Group(
        "openai/chat_completion/test_chat_error.py",
        (
            met("test_json_schema_response_format_missing_schema", Request(
                CHATS, chat(response_format={"type": "json_schema"}), status=400, said="response_format")),
            met("test_system_message_accepts_text", Request(CHATS, chat(messages=[ONE[0]]))),
            met("test_system_message_accepts_text_array", Request(CHATS, chat(
                messages=[{"role": "system", "content": [{"type": "text", "text": "x"}]}]))),
            met("test_non_numeric_logprobs_rejected", Request(CHATS, chat(logprobs="five"), status=400, said="logprobs")),
        ),
        names("test_chat_error_non_stream test_openai_chat_keeps_mm_cache_for_engine_execution "
              "test_renderer_only_chat_request_skips_mm_cache test_chat_error_stream test_chat_error_stream_first_chunk "
              "test_system_message_warns_on_image test_user_message_accepts_image test_system_message_warns_on_audio "
              "test_system_message_warns_on_video test_online_renderer_rejects_mm_processor_kwargs_by_default "
              "test_online_renderer_rejects_media_io_kwargs_by_default test_trust_request_mm_kwargs_opt_in_allows_overrides "
              "test_structural_tag_response_format_invalid test_batch_structural_tag_response_format_invalid "
              "test_structured_outputs_structural_tag_invalid test_deeply_nested_structural_tag_rejected"),
        "inside vLLM, or of images, sound and grammars",
    ),
    Group(
        "openai/chat_completion/test_chat_logit_bias_validation.py",
        (
            met("test_chat_logit_bias_valid", Request(CHATS, chat(logit_bias={"8191": 1.0}))),
            met("test_chat_logit_bias_invalid", Request(CHATS, chat(logit_bias={"8193": 1.0}), status=400, said="8193")),
            otherwise("test_chat_logit_bias_non_integer_key", "a text stands for its tokens, as in llama.cpp",
                      Request(CHATS, chat(logit_bias={"not_a_token_id": 50}))),
            met("test_chat_logit_bias_non_numeric_value", Request(
                CHATS, chat(logit_bias={"1": "not_a_number"}), status=400, said="logit_bias")),
            otherwise("test_chat_logit_bias_multiple_non_integer_keys", "the same",
                      Request(CHATS, chat(logit_bias={"bad1": 50.0, "bad2": 20.0}))),
        ),
    ),
    Group(
        "openai/chat_completion/test_non_object_body_validation.py",
        tuple(met(f"test_chat_completion_request_rejects_non_object_body[{payload}]", Request(
            CHATS, payload, status=400)) for payload in ("this is not valid json{{{", '["not", "an", "object"]', "42", "null")),
        names("test_chat_completion_request_cache_salt_still_validated_on_dict"), "`cache_salt` has no effect",
    ),
    Group(
        "openai/chat_completion/test_enable_force_include_usage.py",
        (otherwise("test_chat_with_enable_force_include_usage", "asked for by each request, not at the start",
                   Request(CHATS, chat(stream=True, stream_options={"include_usage": True}))),),
    ),
    Group("openai/completion/test_completion_text_offset.py", (
        met("test_stream_text_offset_matches_non_stream_with_stop_holdback", why="tests/test_server_completions.py"),)),
    Group(
        "openai/completion/test_prompt_validation.py",
        (
            met("test_empty_prompt", Request(COMPLETIONS, completion(prompt=None), status=400, said="prompt")),
            met("test_out_of_vocab_token_ids", Request(
                COMPLETIONS, completion(prompt=[999999]), status=400, said="not in the vocabulary")),
        ),
        names("test_load_prompt_embeds test_disable_prompt_embeds"), "no prompts of vectors",
    ),
    Group("openai/completion/test_token_in_token_out.py", (
        met("test_token_in_token_out_and_logprobs", Request(COMPLETIONS, completion(
            prompt=IDS, echo=True, return_token_ids=True),
            lambda a: len(a["choices"][0]["token_ids"]) == 5 and a["choices"][0]["prompt_token_ids"] == IDS)),)),
    Group(
        "openai/test_return_token_ids.py",
        (
            met("test_basic_completion_with_emoji", Request(COMPLETIONS, completion(
                prompt="I love coding 🚀", logprobs=1, return_token_ids=True),
                lambda a: a["choices"][0]["token_ids"] and a["choices"][0]["prompt_token_ids"])),
            refused("test_chat_completion_with_tool_use", CHATS, chat(tools=[{"type": "function"}]), "tools"),
            met("test_comparison_with_prompt_logprobs_and_logprobs", Request(COMPLETIONS, completion(
                echo=True, logprobs=1, return_token_ids=True, return_tokens_as_token_ids=True), _ids),
                why="but for `prompt_logprobs`"),
            met("test_chat_completion_with_emoji_and_token_ids", Request(CHATS, chat(return_token_ids=True),
                lambda a: a["prompt_token_ids"] and a["choices"][0]["token_ids"])),
        ),
    ),
    Group(
        "openai/test_return_tokens_as_ids.py",
        (
            met("test_completion_return_tokens_as_token_ids_completion", Request(COMPLETIONS, completion(
                echo=True, logprobs=1, return_tokens_as_token_ids=True, return_token_ids=True), _ids)),
            met("test_chat_return_tokens_as_token_ids_completion", Request(CHATS, chat(
                logprobs=True, return_tokens_as_token_ids=True),
                lambda a: all(t["token"].startswith("token_id:") for t in a["choices"][0]["logprobs"]["content"]))),
        ),
        names("test_responses_api_logprobs_with_return_tokens_as_token_ids"), "not OpenAI's responses",
    ),
    Group("openai/test_chunked_prompt.py", tuple(
        met(name, Request(path, body | {"stream": True, "stream_options": {"include_usage": True}}, _usage(False, True)))
        for name, path, body in (
            ("test_completion_stream_options_and_logprobs_with_long_prompts", COMPLETIONS,
             completion(prompt="What is it? " * 100, logprobs=5)),
            ("test_chat_completion_stream_options_and_logprobs_with_long_prompts", CHATS,
             chat(messages=[{"role": "user", "content": "What is it? " * 100}], logprobs=True, top_logprobs=5)),
        ))),
    Group("openai/test_openai_schema.py", (
        met("test_openapi_stateless", why="tests/test_server_schema.py, test_server_fuzz.py with schemathesis"),
        met("test_openapi_exposes_completion_response_schemas", Request(
            "/openapi.json", check=lambda a: "/v1/completions" in a["paths"]), why="of requests; answers have no schema")),
    ),
    Group("openai/models/test_models.py", (
        met("test_check_models", Request("/v1/models", check=lambda a: (
            a["data"][0]["id"], a["data"][0]["root"]) == ("nano", "nano")), why="no adapters"),)),
    Group(
        "serve/tokenize/test_tokenization.py",
        (
            met("test_tokenize_completions", *(Request(
                "/tokenize", {"model": "nano", "prompt": "def f(", "add_special_tokens": special},
                lambda a: a == {"tokens": [504, 295, 12], "count": 3, "max_model_len": 1024, "token_strs": None})
                for special in (False, True))),
            met("test_tokenize_chat", Request(
                "/tokenize", {"messages": ONE, "add_generation_prompt": False, "continue_final_message": True},
                lambda a: a["count"] == len(a["tokens"]) > 5)),
            otherwise("test_tokenize_chat_with_tools", "tools are not known there and ignored",
                      Request("/tokenize", {"messages": ONE, "tools": []})),
            met("test_tokenize_with_return_token_strs", Request(
                "/tokenize", {"prompt": "def f(", "return_token_strs": True},
                lambda a: "".join(a["token_strs"]) == "def f("), why="their texts, not the vocabulary's letters for bytes"),
            met("test_detokenize", Request("/detokenize", {"model": "nano", "tokens": [504, 295, 12]},
                                           lambda a: a["prompt"] == "def f(")),
            met("test_tokenizer_info_basic", Request("/tokenizer_info", check=lambda a: a["tokenizer_class"])),
            met("test_tokenizer_info_schema", Request(
                "/tokenizer_info", check=lambda a: isinstance(a["model_max_length"], int) and a["eos_token"])),
            met("test_tokenizer_info_consistency_with_tokenize", Request(
                "/tokenizer_info", check=lambda a: a["model_max_length"] >= 1024)),
            met("test_tokenizer_info_chat_template", Request(
                "/tokenizer_info", check=lambda a: a["chat_template"] is None)),
        ),
    ),
    Group(
        "serve/instrumentator/test_basic.py",
        (
            met("test_show_version", Request("/version", check=lambda a: a["version"])),
            met("test_check_health", Request("/health")),
            met("test_request_cancellation", why="tests/test_server_waiting.py"),
            otherwise("test_request_wrong_content_type", "clients send none, or another: taken where no page sent it",
                      Request(CHATS, chat(), headers={"Content-Type": "application/x-www-form-urlencoded"})),
            met("test_server_load", Request("/load", check=lambda a: set(a) == {"server_load"})),
            met("test_health_check_engine_dead_error", why="tests/test_server_operations.py"),
        ),
    ),
    Group(
        "serve/middleware",
        (
            met("test_cors_middleware: test_explicit_origin_allows_browser_requests", why="tests/test_hardened_server.py"),
            met("test_optional_middleware: test_no_api_token", Request("/v1/models")),
            met("test_optional_middleware: test_missing_api_token, test_passed_api_token", why="above, test_security.py"),
            otherwise("test_optional_middleware: test_no_request_id_header", "each answer has our own `X-Request-ID`",
                      Request("/health")),
            otherwise("test_optional_middleware: test_custom_request_id_header", "the same, whatever was sent",
                      Request("/health", headers={"X-Request-Id": "Custom"})),
            otherwise("test_optional_middleware: test_not_v1_or_v2_path_skips_auth",
                      "`/health` alone is open, `/metrics` with `--open-metrics`", Request("/health")),
        ),
        names("test_authentication_middleware: test_auto_discovered_protected_routes_require_auth "
              "test_auto_discovered_unprotected_routes_no_auth"), "inside vLLM; tests/test_hardened_server.py",
    ),
)  # fmt: skip
GROUPS = (COMPLETION, ERRORS, *OTHERS, *ELSEWHERE)
