"""Published cases of things that this server does not have: one line a case on the page, nothing to send."""

from __future__ import annotations

from published_cases import Group, names

LLAMA = (
    Group(
        "test_template.py", (), names(
            "test_reasoning test_date_inside_prompt test_add_generation_prompt"
        ),
        "chat templates of other models; a base model has none",
    ),
    Group(
        "test_slot_save.py", (), names(
            "test_slot_save_restore test_slot_restore_legacy_token_list test_slot_erase "
            "test_slot_save_restore_text_only_on_multimodal test_slot_save_restore_with_image "
            "test_slot_save_restore_with_two_images test_slot_save_restore_with_image_across_restart "
            "test_slot_save_restore_image_payload_larger_than_context test_slot_restore_media_file_without_mmproj"
        ),
        "there are no slots; `--cache-dir` keeps the cache over a restart",
    ),
    Group(
        "test_kv_keep_only_active.py", (), names(
            "test_clear_and_restore test_disabled_with_flag"
        ),
        "its cache has another shape: docs/architecture.md",
    ),
    Group(
        "test_sleep.py", (), names(
            "test_server_sleep test_server_sleep_read_only_endpoints test_server_sleep_metrics_buckets "
            "test_server_sleep_token_counting_wake"
        ),
        "the server does not sleep",
    ),
    Group(
        "test_stream.py", (), names(
            "test_stream_resume_and_stop_with_slashed_model_name test_stream_stop_during_model_load "
            "test_stream_resumes_after_reload_during_model_load"
        ),
        "streams are not resumed",
    ),
    Group(
        "test_speculative.py", (), names(
            "test_with_and_without_draft test_different_draft_min_draft_max test_synth_is_deterministic "
            "test_synth_ignores_target_tokens test_slot_ctx_not_exceeded test_with_ctx_shift "
            "test_multi_requests_parallel"
        ),
        "no draft model; guesses from the text itself, with the same bits: tests/test_speculation.py",
    ),
    Group(
        "test_lora.py", (), names(
            "test_lora test_lora_per_request test_with_big_model"
        ),
        "no adapters; `lora` with one is refused by name, `/lora-adapters` is an empty list",
    ),
    Group(
        "test_embedding.py", (), names(
            "test_embedding_single test_embedding_multiple test_embedding_multiple_with_fa test_embedding_mixed_input "
            "test_embedding_content_text_same_as_string test_embedding_invalid_input test_embedding_pooling_mean "
            "test_embedding_pooling_mean_multiple test_embedding_pooling_none test_embedding_pooling_none_oai "
            "test_embedding_openai_library_single test_embedding_openai_library_multiple "
            "test_embedding_error_prompt_too_long test_same_prompt_give_same_result test_embedding_usage_single "
            "test_embedding_usage_multiple test_embedding_openai_library_base64"
        ),
        "no embeddings: 404",
    ),
    Group(
        "test_rerank.py", (), names(
            "test_rerank test_rerank_tei_format test_invalid_rerank_req test_rerank_usage test_rerank_top_n "
            "test_rerank_tei_top_n"
        ),
        "no reranking: 404",
    ),
    Group(
        "test_vision_api.py", (), names(
            "test_models_supports_multimodal_capability test_v1_models_supports_multimodal_capability "
            "test_vision_chat_completion test_vision_chat_completion_token_count test_vision_completion "
            "test_vision_embeddings test_vision_embeddings_oai_content"
        ),
        "no images: refused by name",
    ),
    Group(
        "test_tool_call.py", (), names(
            "test_completion_with_required_tool_real_model test_completion_without_tool_call_fast "
            "test_completion_without_tool_call_slow test_weather test_calc_result test_thoughts test_hello_world"
        ),
        "no tools: refused by name",
    ),
    Group(
        "test_tools_builtin.py", (), names(
            "test_tools_builtin_grep_search test_tools_builtin_read_file test_tools_builtin_write_then_edit_file "
            "test_tools_builtin_edit_file_rejects_non_unique_old_text test_tools_builtin_exec_shell_command_stream "
            "test_tools_builtin_cwd_header test_tools_builtin_runtime_header "
            "test_tools_builtin_runtime_header_unknown_scheme "
            "test_tools_builtin_runtime_header_rejects_ssh_option_injection "
            "test_tools_builtin_runtime_header_rejects_container_option_injection "
            "test_tools_builtin_docker_runtime_cleans_up_spawned_container "
            "test_tools_builtin_edit_file_rejects_overlapping_edits test_tools_builtin_file_glob_search_type_dir "
            "test_tools_builtin_file_glob_search_max_depth_and_limit test_tools_builtin_file_glob_search_junk_dirs "
            "test_tools_builtin_file_glob_search_rejects_invalid_type "
            "test_tools_builtin_cwd_header_overrides_model_param test_tools_builtin_cwd_relative_paths"
        ),
        "no tools",
    ),
    Group(
        "test_mcp_servers.py", (), names(
            "test_mcp_tools_listed_in_tools_endpoint test_mcp_tool_invocation test_mcp_bad_command_does_not_crash "
            "test_mcp_multiple_servers test_mcp_tools_not_listed_when_not_configured "
            "test_mcp_fail_once_tool_eventual_success test_mcp_tools_via_json_config_file "
            "test_mcp_tools_slot_independent test_mcp_concurrent_tool_calls test_mcp_tool_timeout "
            "test_mcp_warmup_partial_failure test_mcp_notification_during_request "
            "test_mcp_instance_respawn_after_crash test_mcp_fail_once_eventual_success_verified "
            "test_mcp_config_file_errors test_mcp_empty_tool_list test_mcp_rapid_succession_calls "
            "test_mcp_notification_burst test_mcp_tool_definition_shape_via_chat_completions "
            "test_mcp_slow_tool_call_slot_release test_mcp_grandchild_holding_pipes_does_not_deadlock"
        ),
        "no tools",
    ),
    Group(
        "test_proxy.py", (), names(
            "test_mcp_no_proxy test_mcp_proxy test_mcp_proxy_custom_port test_mcp_proxy_no_content"
        ),
        "no proxy",
    ),
    Group(
        "test_router.py", (), names(
            "test_router_props test_router_chat_completion_stream test_router_unload_model "
            "test_router_models_max_evicts_lru test_router_queue_does_not_evict_busy_model "
            "test_router_queue_coalesces_requests_for_same_model test_router_queue_client_disconnect_keeps_model "
            "test_router_queue_is_fifo test_router_queue_two_waiters_share_one_eviction "
            "test_router_no_models_autoload test_router_api_key_required test_router_reload_models "
            "test_router_dedup_cache_models test_router_remote_preset test_router_download_model "
            "test_router_delete_model"
        ),
        "one model a server",
    ),
    Group(
        "test_compat_anthropic.py", (), names(
            "test_anthropic_messages_basic test_anthropic_messages_with_system "
            "test_anthropic_messages_multipart_content test_anthropic_messages_conversation "
            "test_anthropic_messages_streaming test_anthropic_count_tokens test_anthropic_count_tokens_with_system "
            "test_anthropic_count_tokens_no_max_tokens test_anthropic_tool_use_basic test_anthropic_tool_result "
            "test_anthropic_tool_result_with_text test_anthropic_tool_result_with_image "
            "test_anthropic_tool_result_error test_anthropic_tool_streaming test_anthropic_vision_format_accepted "
            "test_anthropic_vision_base64_with_multimodal_model test_anthropic_stop_sequences "
            "test_anthropic_temperature test_anthropic_top_p test_anthropic_top_k test_anthropic_missing_messages "
            "test_anthropic_empty_messages test_anthropic_streaming_content_block_indices test_anthropic_thinking "
            "test_anthropic_metadata test_anthropic_vs_openai_different_response_format "
            "test_anthropic_thinking_history_in_count_tokens test_anthropic_thinking_history_in_template "
            "test_anthropic_thinking_with_reasoning_model"
        ),
        "not Anthropic's interface: 404",
    ),
    Group(
        "test_compat_oai_responses.py", (), names(
            "test_responses_with_openai_library test_responses_stream_with_openai_library "
            "test_responses_stream_with_llama_telemetry"
        ),
        "not OpenAI's responses: 404",
    ),
    Group(
        "test_compat_gcp.py", (), names(
            "test_gcp_predict_camel_case test_gcp_predict_multiple_instances"
        ),
        "not Google's interface",
    ),
)  # fmt: skip

VLLM = (
    Group(
        "openai/chat_completion/test_batched_chat_completions.py", (), names(
            "test_batched_chat_completions test_batched_chat_completions_with_json_schema "
            "test_batched_chat_completions_logprobs_not_token_id_placeholders "
            "test_batched_chat_completions_return_tokens_as_token_ids test_batched_chat_completions_logprob_token_ids "
            "test_batched_echo_does_not_prepend_user_prompt test_batched_echo_prepends_matching_assistant_prefix "
            "test_batched_harmony_response_format_uses_structural_tag test_batch_rejects_kv_transfer_prompt_token_ids "
            "test_batched_parser_receives_each_prompt_prefix test_batched_reasoning_wiring_matches_single_chat"
        ),
        "one chat a request",
    ),
    Group(
        "openai/chat_completion/test_chat_completion_with_prompt_embeds.py", (), names(
            "test_single_prompt_embeds_part test_multiple_prompt_embeds_parts test_multi_message_conversation "
            "test_streaming test_text_content_and_prompt_embeds_match test_text_reasoning_and_prompt_embeds_match "
            "test_invalid_reasoning_embeds_return_bad_request test_missing_data_field test_invalid_base64"
        ),
        "no prompts of vectors",
    ),
    Group(
        "openai/chat_completion/test_completion_with_function_calling.py", (), names(
            "test_function_tool_use test_no_args_tool_call test_named_tool_use "
            "test_inconsistent_tool_choice_and_tools test_max_tokens_with_tool_choice_required"
        ),
        "no tools: refused by name",
    ),
    Group(
        "openai/chat_completion/test_extra_content_fields.py", (), names(
            "test_translategemma_extra_lang_code_fields test_translategemma_image_extra_lang_code_fields"
        ),
        "of another model's template",
    ),
    Group(
        "openai/chat_completion/test_include_reasoning.py", (), names(
            "test_include_reasoning_true_non_streaming test_include_reasoning_false_non_streaming "
            "test_reasoning_tokens_in_usage test_include_reasoning_true_streaming "
            "test_include_reasoning_false_streaming test_default_includes_reasoning"
        ),
        "no reasoning",
    ),
    Group(
        "openai/chat_completion/test_logprob_token_ids.py", (), names(
            "test_chat_request_decouples_top_k_from_explicit_token_ids "
            "test_completion_request_decouples_top_k_from_explicit_token_ids "
            "test_completion_rejects_explicit_token_ids_without_generated_tokens "
            "test_requests_reject_explicit_token_ids_with_beam_search test_logprob_token_ids_returns_requested_ids "
            "test_logprob_token_ids_stream_with_no_top_k test_logprob_token_ids_default_behavior_unchanged"
        ),
        "`logprob_token_ids` is not known and ignored",
    ),
    Group(
        "openai/chat_completion/test_message_assembly.py", (), names(
            "test_auto_tools_off_drops_tool_calls test_none_tool_choice_drops_tool_calls "
            "test_auto_with_tools_keeps_tool_calls test_auto_without_tools_drops_tool_calls "
            "test_required_and_named_keep_tool_calls_and_default_content test_generates_missing_tool_call_id "
            "test_parallel_tool_calls_false_keeps_first test_include_reasoning"
        ),
        "inside vLLM",
    ),
    Group(
        "openai/chat_completion/test_serving_chat.py", (), names(
            "test_gpt_oss_chat_tool_call_streaming test_gpt_oss_multi_turn_chat "
            "test_gpt_oss_tool_message_array_content test_gpt_oss_tool_choice_none "
            "test_gpt_oss_speculative_reasoning_leakage test_streaming_chunks_keep_usage_and_metadata "
            "test_streaming_serialization_failure_emits_error_and_done test_streaming_errors_preserve_envelope "
            "test_build_per_request_timing_metrics_valid_timestamps test_chat_per_request_metrics_follow_server_flag "
            "test_chat_per_request_metrics_suppressed_for_n_greater_than_one "
            "test_chat_full_generator_gives_each_choice_parser_the_prompt "
            "test_chat_streaming_metrics_ride_on_usage_chunk test_streaming_reasoning_usage_counts_across_deltas "
            "test_streaming_reasoning_usage_lifecycle_edges test_streaming_logprobs_kept_when_parser_suppresses_delta "
            "test_async_serving_chat_init test_mm_prompt_tokens_details test_completion_tokens_details "
            "test_serving_chat_returns_correct_model_name test_admission_rejection_escapes_before_response_starts "
            "test_serving_chat_should_set_correct_max_tokens "
            "test_serving_chat_truncate_prompt_tokens_max_token_accounting "
            "test_serving_chat_truncation_side_controls_prompt_truncation test_serving_chat_starts_without_tokenizer "
            "test_serving_chat_mistral_token_ids_prompt_is_validated "
            "test_serving_chat_mistral_token_ids_prompt_too_long_is_rejected "
            "test_serving_chat_could_load_correct_generation_config test_serving_chat_did_set_correct_cache_salt "
            "test_serving_chat_data_parallel_rank_extraction test_beam_search_preserves_request_priority "
            "test_simple_chat test_system_message_without_tools test_system_message_with_tools "
            "test_tool_call_response_with_content test_multi_turn_tools_and_reasoning test_non_tool_reasoning "
            "test_non_tool_reasoning_empty_content test_non_tool_reasoning_empty_content_list "
            "test_tool_choice_validation_without_parser test_streaming_n_gt1_independent_tool_parsers "
            "test_make_request_with_harmony_reuses_kv_transfer_prompt_token_ids "
            "test_make_request_with_harmony_rejects_invalid_kv_transfer_prompt_token_ids "
            "test_chat_kv_transfer_prompt_token_ids_rejects_invalid_ids "
            "test_chat_kv_transfer_prompt_token_ids_rejection_notifies_kv_connector "
            "test_chat_kv_transfer_prompt_token_ids_ignored_with_echo "
            "test_chat_kv_transfer_prompt_token_ids_ignored_with_non_text_content "
            "test_chat_kv_transfer_prompt_token_ids_ignored_with_reasoning_embeds "
            "test_chat_kv_transfer_prompt_token_ids_allows_text_only_parts test_resolve_finish_reason "
            "test_non_streaming_finish_reason_matches_tool_calls"
        ),
        "inside vLLM, or of tools, reasoning and other models",
    ),
    Group(
        "openai/chat_completion/test_stream_processor.py", (), names(
            "test_tool_calls_set_finish_reason_and_respect_parallel_tool_calls "
            "test_drops_tool_calls_like_non_streaming test_finished_without_output_skips_parser "
            "test_hidden_reasoning_hides_metadata_only_with_a_parser"
        ),
        "inside vLLM",
    ),
    Group(
        "openai/chat_completion/test_thinking_token_budget.py", (), names(
            "test_thinking_token_budget_mixed_requests test_thinking_token_budget_limits_reasoning "
            "test_thinking_token_budget_qwen35_fp8_mtp_concurrent_mixed_budget_and_plain "
            "test_streaming_with_thinking_disabled_stays_in_content"
        ),
        "no reasoning",
    ),
    Group(
        "openai/chat_completion/test_thinking_token_budget_validation.py", (), names(
            "test_chat_completion_request_rejects_invalid_thinking_token_budget "
            "test_chat_completion_request_accepts_valid_thinking_token_budget "
            "test_chat_completion_request_accepts_minus_one_as_unlimited "
            "test_completion_request_rejects_invalid_thinking_token_budget "
            "test_completion_request_accepts_valid_thinking_token_budget "
            "test_completion_request_accepts_minus_one_as_unlimited"
        ),
        "no reasoning",
    ),
    Group(
        "openai/completion/test_completion_with_prompt_embeds.py", (), names(
            "test_completions_with_prompt_embeds test_completions_errors_with_prompt_embeds "
            "test_completions_with_logprobs_and_prompt_embeds test_prompt_logprobs_raises_error "
            "test_empty_prompt_embeds"
        ),
        "no prompts of vectors",
    ),
    Group(
        "openai/completion/test_lora_resolvers.py", (), names(
            "test_serving_completion_with_lora_resolver test_serving_completion_resolver_not_found "
            "test_serving_completion_resolver_add_lora_fails test_serving_completion_flag_not_set"
        ),
        "no adapters",
    ),
    Group(
        "openai/completion/test_tensorizer_entrypoint.py", (), names(
            "test_single_completion"
        ),
        "another format of weights",
    ),
    Group(
        "openai/test_penalty_default_resolution.py", (), names(
            "test_defaults_applied_when_client_omits test_client_value_overrides_default "
            "test_falls_back_to_zero_without_default"
        ),
        "inside vLLM; options at the start replace defaults here too",
    ),
    Group(
        "openai/test_reasoning_enable_thinking.py", (), names(
            "test_non_none_effort_injects_enable_thinking_true test_none_effort_injects_enable_thinking_false "
            "test_no_effort_does_not_inject test_explicit_user_kwarg_not_overridden "
            "test_reasoning_effort_still_in_kwargs test_effort_map_rewrites_listed_efforts_only "
            "test_enable_thinking_follows_mapped_effort test_effort_map_leaves_chat_template_kwargs_alone "
            "test_no_reasoning_does_not_inject test_effort_map_rewrites_effort"
        ),
        "no reasoning",
    ),
    Group(
        "openai/test_render_parity.py", (), names(
            "test_multiturn_tool_calling test_tools_with_tool_choice test_tools_with_tool_choice_none "
            "test_function_tool_optional_fields test_reasoning_effort test_reasoning_effort_none_rejected_by_harmony "
            "test_effort_map_applies_to_harmony test_explicit_enable_thinking_not_overridden "
            "test_unset_template_values_preserve_defaults test_passthrough_fields"
        ),
        "inside vLLM",
    ),
    Group(
        "openai/test_render_token_offsets.py", (), names(
            "test_completion_flag_forwarded_to_tok_params test_chat_flag_forwarded_to_tok_params "
            "test_generate_request_token_offsets_default_none "
            "test_generate_request_token_offsets_survive_json_round_trip"
        ),
        "inside vLLM",
    ),
    Group(
        "openai/test_session_id.py", (), names(
            "test_get_session_id_accepts_body_field test_get_session_id_accepts_session_header "
            "test_get_session_id_ignores_correlation_header "
            "test_get_session_id_keeps_vllm_xargs_as_compatibility_fallback "
            "test_get_session_id_ignores_empty_and_non_string_values"
        ),
        "inside vLLM",
    ),
    Group(
        "openai/test_stop_token_ids.py", (), names(
            "test_default_stop_token_ids_applied test_client_stop_token_ids_merged_with_defaults "
            "test_no_stop_token_ids_anywhere test_only_client_stop_token_ids "
            "test_routed_experts_prompt_start_is_forwarded test_duplicate_stop_token_ids_deduplicated"
        ),
        "`stop_token_ids` is refused by name",
    ),
    Group(
        "openai/test_tool_calls_serialization.py", (), names(
            "test_tool_calls_list_preserved_after_model_dump test_tool_calls_from_generator_are_materialised "
            "test_tool_calls_list_passthrough test_messages_without_tool_calls_unaffected "
            "test_multiple_tool_calls_materialised"
        ),
        "no tools",
    ),
    Group(
        "openai/test_tool_choice_content_none.py", (), names(
            "test_chat_completion_named_tool_choice_with_none_content "
            "test_responses_parser_allows_named_tool_choice_with_none_content "
            "test_chat_completion_response_omits_empty_tool_calls_payload "
            "test_chat_completion_response_keeps_non_empty_tool_calls_payload "
            "test_chat_completion_stream_response_omits_empty_tool_calls_payload "
            "test_chat_completion_stream_response_keeps_non_empty_tool_calls_payload"
        ),
        "no tools",
    ),
    Group(
        "openai/test_watermarking.py", (), names(
            "test_chat_request_preserves_watermarking_opt_out test_completion_request_preserves_watermarking_opt_out "
            "test_responses_request_preserves_watermarking_opt_out "
            "test_batch_chat_request_preserves_watermarking_opt_out test_request_preserves_watermarking_opt_out "
            "test_speech_requests_leave_watermarking_unspecified "
            "test_request_preserves_unspecified_watermarking_with_structured_outputs "
            "test_request_preserves_explicit_watermarking test_batch_chat_request_preserves_explicit_watermarking "
            "test_batch_chat_request_inherits_watermarking"
        ),
        "no watermarks",
    ),
    Group(
        "serve/instrumentator/test_metrics.py", (), names(
            "test_metrics_counts test_metrics_exist test_abort_metrics_reset test_metrics_exist_run_batch"
        ),
        "our own names: docs/server.md",
    ),
    Group(
        "serve/instrumentator/test_orca_metrics.py", (), names(
            "test_chat_completion_with_orca_header test_completion_with_orca_header test_single_completion"
        ),
        "no such header",
    ),
    Group(
        "serve/instrumentator/test_uds.py", (), names(
            "test_show_version"
        ),
        "TCP only",
    ),
    Group(
        "serve/exception_handling/test_error_sanitization.py", (), names(
            "test_sanitize_message test_strips_traceback_style_frame test_strips_arbitrary_absolute_path "
            "test_strips_single_parent_container_path test_preserves_api_endpoint_paths "
            "test_preserves_short_field_references test_strips_both_address_and_path test_address_stripped "
            "test_safe_message_unchanged test_multiple_addresses_stripped test_module_calls_sanitize_message "
            "test_engine_dead_error_response_hides_log_oriented_message"
        ),
        "inside vLLM; tests/test_hardened_server.py",
    ),
    Group(
        "serve/exception_handling/test_http_status_metrics.py", (), names(
            "test_http_requests_total_records_correct_status"
        ),
        "inside vLLM; tests/test_server_operations.py",
    ),
    Group(
        "serve/exception_handling/test_validation_exception_handler.py", (), names(
            "test_param_falls_back_to_loc test_param_fallback_does_not_crash_on_non_dict_error "
            "test_strips_internal_markers test_all_internal_falls_back_to_raw_join "
            "test_handler_strips_endpoint_file_context test_handler_strips_endpoint_path_only_variant "
            "test_many_errors_are_capped test_container_input_is_described_not_echoed "
            "test_long_string_input_is_truncated test_small_input_is_still_reported_verbatim "
            "test_union_loc_is_cleaned_in_the_message"
        ),
        "inside vLLM; tests/test_server_errors.py",
    ),
    Group(
        "serve/utils/test_api_utils.py", (), names(
            "test_create_json_response_serializes_numpy test_load_aware_call_tracks_json_response_until_completion "
            "test_create_json_response_serializes_models test_create_json_response_serializes_empty_list "
            "test_create_json_response_preserves_large_integers test_create_json_response_preserves_custom_status "
            "test_create_json_response_preserves_error_status "
            "test_with_cancellation_disconnect_skips_response_validation "
            "test_should_include_usage_force_enables_continuous_usage "
            "test_default_sampling_params_used_when_no_request_max_tokens "
            "test_request_max_tokens_not_capped_by_default_sampling_params test_override_max_tokens_caps_request "
            "test_override_max_tokens_used_as_default test_max_model_len_still_caps_output "
            "test_request_max_tokens_smaller_than_default test_input_length_exceeds_max_model_len"
        ),
        "inside vLLM",
    ),
    Group(
        "serve/utils/test_fingerprint.py", (), names(
            "test_four_modes_produce_expected_shapes test_full_mode_emits_only_non_trivial_parallelism "
            "test_get_respects_set_default test_compute_hash_failure_does_not_raise"
        ),
        "inside vLLM",
    ),
    Group(
        "serve/utils/test_request_logger.py", (), names(
            "test_request_logger_log_outputs test_request_logger_log_outputs_streaming_delta "
            "test_request_logger_log_outputs_streaming_complete test_request_logger_log_outputs_with_truncation "
            "test_request_logger_log_output_token_ids_require_debug test_request_logger_log_outputs_none_values "
            "test_request_logger_log_outputs_empty_output test_request_logger_log_outputs_integration "
            "test_streaming_complete_logs_full_text_content test_request_logger_log_request_body_truncation"
        ),
        "inside vLLM",
    ),
    Group(
        "serve/utils/test_sse_keep_alive.py", (), names(
            "test_disabled_returns_same_generator test_keep_alive_during_silent_start "
            "test_no_keep_alive_when_streaming_is_fast test_keep_alive_between_chunks_does_not_drop_data "
            "test_empty_generator_returns_immediately test_exception_propagates "
            "test_upstream_cancelled_error_propagates test_aclose_closes_upstream "
            "test_client_disconnect_cancels_upstream test_streaming_response_emits_comment "
            "test_streaming_response_disconnect_closes_upstream"
        ),
        "inside vLLM",
    ),
)  # fmt: skip
