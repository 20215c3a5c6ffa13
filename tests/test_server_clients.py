"""HTTP as clients speak it, and the parts of the three APIs that editors' plugins and SDKs lean on."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from pipelines.pipeline import Pipeline

if TYPE_CHECKING:
    from running_server import RunningServer

SHORT: dict[str, Any] = {"prompt": "def f(", "max_tokens": 4, "temperature": 0}
INFILL: dict[str, Any] = {"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n", "n_predict": 8}


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=x"]
)
def test_a_body_needs_no_content_type(server: RunningServer, kind: str | None) -> None:
    """curl's -d, and Ollama's own examples."""
    headers = {} if kind is None else {"Content-Type": kind}
    for route in ("/v1/completions", "/completion", "/api/generate"):
        body = json.dumps(SHORT | {"stream": False}).encode()
        answer = httpx.post(server.url + route, content=body, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text


def test_but_not_from_a_page_of_somewhere_else(server: RunningServer) -> None:
    headers = {"Content-Type": "text/plain", "Origin": "https://evil.example"}
    answer = httpx.post(server.url + "/api/generate", content=json.dumps(SHORT).encode(), headers=headers, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"].endswith("expected a JSON object, sent as application/json")


def test_a_slash_at_the_end_and_heads(server: RunningServer) -> None:
    assert server.get("/v1/models/").json() == server.get("/v1/models").json()
    for route in ("/v1/completions/", "//v1/completions", "/v1//completions//", "//infill", "//api/generate"):
        assert server.post(route, SHORT).status_code == 200, route
    for route in ("/health", "/v1/models", "/api/tags", "/props", "/metrics"):
        answer = httpx.head(server.url + route)
        assert (answer.status_code, answer.content) == (200, b"")


def raw(server: RunningServer, request: str) -> tuple[bytes, bytes]:
    """Head and body of an answer to a request as it stands, read until the server hangs up."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(request.encode())
        while part := connection.recv(65536):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize("stream", [False, True])
def test_http_1_0_has_no_chunks(server: RunningServer, stream: bool) -> None:
    body = json.dumps(SHORT | {"stream": stream})
    head, answer = raw(server, f"POST /v1/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    assert b"transfer-encoding" not in head.lower()
    if stream:
        assert answer.startswith(b"data: {")
        assert answer.endswith(b"data: [DONE]\n\n")
    else:
        assert json.loads(answer)["choices"][0]["text"]


def test_line_ends_of_unicode_do_not_end_an_event(server: RunningServer) -> None:
    text = "a\u2028b\u2029c\x85d"
    answer = server.post("/v1/completions", SHORT | {"prompt": text, "echo": True, "max_tokens": 0, "stream": True})
    lines = [line for line in answer.text.splitlines() if line]  # which ends lines at all of them
    assert all(line.startswith("data: ") for line in lines)
    assert json.loads(lines[0].removeprefix("data: "))["choices"][0]["text"] == text


def test_errors_have_the_shape_of_the_routes_api(server: RunningServer) -> None:
    ollama = server.post("/api/generate", {"prompt": "x", "options": {"temperature": "hot"}})
    assert ollama.status_code == 400
    assert "temperature" in ollama.json()["error"]
    llama = server.post("/completion", {"prompt": [5] * 2000}).json()["error"]
    assert (llama["code"], llama["type"]) == (400, "exceed_context_size_error")
    assert server.post("/v1/completions", {"prompt": 5}).json()["error"]["type"] == "invalid_request_error"


def test_penalties_and_biases_are_computed(server: RunningServer, nano: Pipeline) -> None:
    greedy = SHORT | {"max_tokens": 24}
    plain = server.post("/v1/completions", greedy).json()["choices"][0]["text"]
    for field in ("presence_penalty", "frequency_penalty"):
        answer = server.post("/v1/completions", greedy | {field: 1.5}).json()["choices"][0]["text"]
        assert answer == nano.generate(SHORT["prompt"], max_new_tokens=24, **{field: 1.5}).text
        assert answer != plain
    token = nano.encode(plain)[0]
    banned = server.post("/completion", {"prompt": SHORT["prompt"], "n_predict": 1, "temperature": 0,
                                         "logit_bias": [[token, False]], "return_tokens": True}).json()  # fmt: skip
    assert banned["tokens"] != [token]
    forced = server.post("/v1/completions", SHORT | {"max_tokens": 1, "logit_bias": {str(token + 1): 100}}).json()
    assert forced["choices"][0]["text"] == nano.tokenizer.decode([token + 1])


def test_llama_cpps_answer_says_how_it_was_made(server: RunningServer) -> None:
    body = {"prompt": "x = [\n", "n_predict": 8, "seed": 5, "top_k": 7, "repeat_last_n": 3, "stop": ["@@"] * 40}
    answer = server.post("/completion", body | {"logit_bias": [["zz", -1.5]], "ignore_eos": True}).json()
    settings = answer["generation_settings"]
    assert {name: settings[name] for name in ("n_predict", "seed", "top_k", "repeat_last_n", "min_p")} == {
        "n_predict": 8, "seed": 5, "top_k": 7, "repeat_last_n": 3, "min_p": 0.05,
    }  # fmt: skip
    assert settings["samplers"] == ["penalties", "top_k", "top_p", "min_p", "temperature"]
    assert answer["prompt"] == "x = [\n"
    assert answer["has_new_line"] is ("\n" in answer["content"])
    assert answer["truncated"] is False
    full = server.post("/completion", {"prompt": [5] * 1000, "n_predict": 500, "ignore_eos": True}).json()
    assert (full["truncated"], full["stop_type"]) == (True, "limit")


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("x", 1), ([5, 6], 1), ([5, "x", 6], 1), (["x", "y"], 2), ([[5], "x", [6, "y"]], 3), (["x"], 1), ("", 1),
        ([{"prompt_string": "x"}, "y"], 2),
    ],
)  # fmt: skip
def test_llama_cpps_prompts(server: RunningServer, prompt: Any, count: int) -> None:
    answer = server.post("/completion", {"prompt": prompt, "n_predict": 2})
    assert answer.status_code == 200, answer.text
    assert (len(answer.json()) if isinstance(answer.json(), list) else 1) == count


def test_llama_cpps_stream_ends_with_an_account(server: RunningServer) -> None:
    body = {"prompt": "def f(", "n_predict": 6, "n_probs": 2, "temperature": 0}
    *pieces, last = server.events("/completion", body)
    whole = server.post("/completion", body).json()
    assert "".join(piece["content"] for piece in pieces) == whole["content"]
    assert last["content"] == ""
    assert last["generation_settings"]["n_predict"] == 6
    told = [token["id"] for piece in pieces for token in piece["completion_probabilities"]]
    assert told == [token["id"] for token in whole["completion_probabilities"]]


def test_editors_send_dozens_of_stop_strings_and_the_largest_number(server: RunningServer) -> None:
    body = {"prompt": "def f(", "suffix": "\n", "max_tokens": 4, "stop": [f"<stop{i}>" for i in range(40)]}
    assert server.post("/v1/fim/completions", body).status_code == 200
    assert server.post("/engines/copilot-codex/completions", SHORT).status_code == 200
    most = SHORT | {"max_tokens": 2**53 - 1, "stop": "\n", "logprobs": False}
    assert server.post("/v1/completions", most).status_code == 200


def test_warm_up_by_chat(server: RunningServer) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "n_predict": 0, "samplers": [], "id_slot": 3}
    answer = server.post("/v1/chat/completions", body).json()
    assert answer["choices"][0]["message"]["content"] == ""


def test_apply_template_and_models(server: RunningServer) -> None:
    chat = {"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}
    assert server.post("/apply-template", chat).json() == {"prompt": "a\nb"}
    assert server.get("/models").json()["data"][0]["id"] == "nano"


def test_control_tokens_come_back_by_their_names(server: RunningServer, nano: Pipeline) -> None:
    text = "a<|endoftext|>b<fim_prefix>é🙂"
    ids = server.post("/tokenize", {"content": text}).json()["tokens"]
    assert len(ids) < len(text)
    assert server.post("/detokenize", {"tokens": ids}).json() == {"content": text, "prompt": text}
    pieces = [
        token["piece"] for token in server.post("/tokenize", {"content": text, "with_pieces": True}).json()["tokens"]
    ]
    assert pieces[:4] == ["a", "<|endoftext|>", "b", "<fim_prefix>"]
    assert b"".join(bytes(piece) if isinstance(piece, list) else piece.encode() for piece in pieces) == text.encode()


def test_lm_evals_remote_tokenizer(server: RunningServer, nano: Pipeline) -> None:
    """What its RemoteTokenizer asks, as vLLM answers it."""
    told = server.post("/tokenize", {"prompt": "def f(", "add_special_tokens": False}).json()
    assert told == {
        "count": len(told["tokens"]),
        "max_model_len": 1024,
        "tokens": nano.encode("def f("),
        "token_strs": None,
    }
    assert server.post("/detokenize", {"tokens": told["tokens"]}).json()["prompt"] == "def f("
    info = server.get("/tokenizer_info").json()
    assert server.post("/tokenize", {"prompt": info["eos_token"]}).json()["tokens"] == [nano.tokenizer.eos_token_id]
    assert server.get("/ping").status_code == 200
    assert set(server.get("/version").json()) == {"version"}


def test_samples_of_a_gap(server: RunningServer) -> None:
    answers = server.post("/infill", INFILL | {"n": 2, "seed": 3}).json()
    assert [answer["index"] for answer in answers] == [0, 1]
    events = server.events("/infill", INFILL | {"n_cmpl": 2})
    assert {event["index"] for event in events} == {0, 1}


def test_obfuscation_hides_how_long_a_piece_is(server: RunningServer) -> None:
    options = {"include_obfuscation": True}
    events = server.events("/v1/completions", SHORT | {"stream_options": options})
    assert {len(event["choices"][0]["text"] + event["obfuscation"]) % 16 for event in events} == {0}


def test_ollama_generates_the_same_text(server: RunningServer, nano: Pipeline) -> None:
    options = {"num_predict": 12, "temperature": 0}
    body = {"prompt": "def fibonacci(n):\n    if", "options": options}
    answer = server.post("/api/generate", body | {"stream": False}).json()
    prompt = nano.prompt(body["prompt"], token_healing=True)
    expected = "".join(piece.text for piece in nano.stream_prompts([prompt], max_new_tokens=12))
    assert (answer["response"], answer["done_reason"]) == (expected, "length")
    lines = [json.loads(line) for line in server.post("/api/generate", body).text.splitlines()]
    assert "".join(line["response"] for line in lines) == expected
    assert lines[-1]["context"] == answer["context"]
    again = body | {"stream": False, "context": answer["context"], "prompt": "\nx"}
    assert server.post("/api/generate", again).json()["prompt_eval_count"] > len(answer["context"])


def test_ollama_goes_on_after_a_context_at_a_gap_too(server: RunningServer, nano: Pipeline) -> None:
    """The ids of the context, then the gap, as Ollama has them; it has no place for a system's text there."""
    body = {"prompt": "def f(x):\n    return ", "suffix": "\n\nf(1)\n", "stream": False, "token_healing": False,
            "options": {"num_predict": 8, "temperature": 0}}  # fmt: skip
    plain = server.post("/api/generate", body).json()
    context = [*nano.encode("<fim_prefix>import os\n<fim_middle>"), 5]
    answer = server.post("/api/generate", body | {"context": context, "system": "Be brief."})
    assert answer.headers["x-ignored-fields"] == "system"
    assert answer.json()["context"][: len(context)] == context
    read = answer.json()["context"][len(context) : answer.json()["prompt_eval_count"]]
    assert read == plain["context"][: plain["prompt_eval_count"]]
    expected = nano.generate([*context, *read], max_new_tokens=8)
    assert answer.json()["context"][-8:] == expected.token_ids


LONG = "".join(f"x{i} = {i}\n" for i in range(400))
READ = {"stream": False, "options": {"num_predict": 8, "temperature": 0}}


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/api/generate", {"prompt": LONG}),
        ("/api/generate", {"prompt": LONG * 100}),
        ("/api/generate", {"prompt": LONG, "system": "Be brief."}),
        ("/api/generate", {"prompt": "y = 1\n", "context": [5] * 1500}),
        ("/api/generate", {"prompt": LONG, "suffix": "z\n", "context": [5] * 300}),
        ("/api/chat", {"messages": [{"role": "user", "content": LONG}]}),
        ("/api/chat", {"messages": [{"role": "user", "content": LONG}, {"role": "user", "content": "y = 1\n"}]}),
    ],
    ids=["text", "far too long", "system", "context", "gap", "one message", "messages"],
)
def test_ollama_reads_the_end_of_what_is_too_long(server: RunningServer, route: str, body: dict[str, Any]) -> None:
    answer = server.post(route, READ | body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["eval_count"] == 8 or answer.json()["done_reason"] == "stop"
    assert answer.json()["prompt_eval_count"] <= 1024 - 8
    assert answer.headers["x-truncated"].startswith("yes")
    refused = server.post(route, READ | body | {"truncate": False})
    assert refused.status_code == 400
    fits = server.post(route, READ | {"prompt": "y = 1\n", "messages": [{"role": "user", "content": "y"}]})
    assert "x-truncated" not in fits.headers


def test_the_end_of_a_text_is_read_as_if_it_were_all(server: RunningServer) -> None:
    cut = server.post("/api/generate", READ | {"prompt": LONG, "token_healing": False}).json()
    shown = server.post("/detokenize", {"tokens": cut["context"][: cut["prompt_eval_count"]]}).json()["content"]
    assert LONG.endswith("\n" + shown)
    assert (
        server.post("/api/generate", READ | {"prompt": shown, "token_healing": False}).json()["response"]
        == (cut["response"])
    )


def test_ollama_chats_and_describes_the_model(server: RunningServer) -> None:
    chat = {"messages": [{"role": "user", "content": "def f("}], "options": {"num_predict": 4}}
    lines = [json.loads(line) for line in server.post("/api/chat", chat).text.splitlines()]
    assert all(line["message"]["role"] == "assistant" for line in lines)
    assert lines[-1]["done"] is True
    assert server.post("/api/chat", {"model": "x"}).json()["done_reason"] == "load"
    assert server.post("/api/generate", {"model": "x", "keep_alive": 0}).json()["done_reason"] == "unload"
    shown = server.post("/api/show", {"model": "nano"}).json()
    assert shown["capabilities"] == ["completion", "insert"]
    family = shown["details"]["family"]
    assert shown["model_info"][f"{family}.context_length"] == 1024
    (told,) = server.get("/api/tags").json()["models"]
    assert (told["name"], len(told["digest"])) == ("nano:latest", 64)
    assert told["size"] > 10 << 20
    assert server.get("/api/ps").json()["models"][0]["context_length"] == 1024


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"format": "json"}, "format"),
        ({"think": True}, "think"),
        ({"template": "x"}, "template"),
        ({"images": ["a"]}, "images"),
        ({"options": {"mirostat": 2}}, "options.mirostat"),
    ],
)
def test_ollama_refuses_by_name(server: RunningServer, body: dict[str, Any], field: str) -> None:
    answer = server.post("/api/generate", {"prompt": "x", "options": {"num_ctx": 2048}} | body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"{field} with this value would change the answer")


def test_windows_line_ends_come_back(server: RunningServer) -> None:
    """A file with CRLF is read as if it had LF, and answered with its own line ends."""
    unix = {"input_prefix": "def a():\n    x = 1\n", "input_suffix": "\nprint(1)\n", "n_predict": 24, "temperature": 0}
    windows = unix | {name: unix[name].replace("\n", "\r\n") for name in ("input_prefix", "input_suffix")}
    answers = [server.post("/infill", body).json() for body in (unix, windows)]
    assert answers[0]["tokens_evaluated"] == answers[1]["tokens_evaluated"]
    assert answers[1]["content"] == answers[0]["content"].replace("\n", "\r\n")
    assert "\n" in answers[0]["content"]


def test_the_text_after_the_cursor_is_not_repeated(server: RunningServer, nano: Pipeline) -> None:
    body = {"prompt": "x = foo(", "suffix": ")\n", "max_tokens": 24, "temperature": 0, "token_healing": False}
    whole = server.post("/v1/completions", body | {"cut_suffix": False}).json()["choices"][0]["text"]
    cut = server.post("/v1/completions", body).json()["choices"][0]["text"]
    assert whole.startswith(cut)
    assert not cut.endswith(")") or cut.count("(") >= cut.count(")")


def test_an_empty_suffix_is_a_gap_with_nothing_after(server: RunningServer) -> None:
    body = {"prompt": "def f(x):\n", "max_tokens": 1}
    plain, gap = (server.post("/v1/completions", body | more).json() for more in ({}, {"suffix": ""}))
    assert gap["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"] + 4  # end of text and three markers


def test_healing_is_refused_where_the_prompt_is_shown(server: RunningServer) -> None:
    answer = server.post("/v1/completions", SHORT | {"echo": True, "token_healing": True})
    assert answer.json()["error"]["param"] == "token_healing"
    healed = SHORT | {"prompt": "import os\n\n\ndef f(x):\n    retu", "token_healing": True}
    assert server.post("/v1/completions", healed).json()["choices"][0]["text"].startswith("rn")
