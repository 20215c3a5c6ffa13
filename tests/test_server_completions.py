"""`/v1/completions` and chat over real sockets, with the official client; texts held to the Python interface's."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pipelines.engine.sampling import log_softmax
from pipelines.pipeline import Pipeline

if TYPE_CHECKING:
    from running_server import RunningServer

openai = pytest.importorskip("openai", reason="needs the extra test")

PROMPTS = [
    "def fibonacci(n):",
    "import os\n\ndef walk(",
    "class Stack:\n    def push(self, ",
    "for i in range(",
    "# sort a list\n",
    "x = {'a': 1",
    "async def main():\n    ",
    "if __name__ ==",
]
GREEDY: dict[str, Any] = {"model": "nano", "temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="session")
def client(server: RunningServer) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


def complete(client: Any, prompt: Any, **more: Any) -> Any:
    return client.completions.create(prompt=prompt, **(GREEDY | more))


def test_greedy_text_is_the_same_everywhere(server: RunningServer, client: Any, nano: Pipeline) -> None:
    expected = [nano.generate(prompt, max_new_tokens=24).text for prompt in PROMPTS]
    alone = [complete(client, prompt).choices[0].text for prompt in PROMPTS]
    assert alone == expected
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda prompt: complete(client, prompt).choices[0].text, PROMPTS))
    assert together == expected
    listed = complete(client, PROMPTS)
    assert [choice.text for choice in listed.choices] == expected
    pieces = [chunk.choices[0].text for chunk in complete(client, PROMPTS[0], stream=True)]
    assert len(pieces) > 1  # how many there are depends on the guesses that were right
    assert "".join(pieces) == expected[0]


def test_greedy_text_is_the_same_after_a_prefix_cache_hit(client: Any, nano: Pipeline) -> None:
    prompt = "# a long beginning\n" + "def f(x):\n    return x + 1\n\n" * 40
    first, second = complete(client, prompt), complete(client, prompt)
    assert first.usage.prompt_tokens_details.cached_tokens < 128  # what other prompts begin with, too
    assert second.usage.prompt_tokens_details.cached_tokens == first.usage.prompt_tokens - 1
    assert second.usage.prompt_tokens == len(nano.encode(prompt))
    text = nano.generate(prompt, max_new_tokens=24).text
    assert first.choices[0].text == second.choices[0].text == text


def test_a_seed_repeats_and_is_the_command_lines(client: Any, nano: Pipeline) -> None:
    prompt = "# what nobody wrote before\n"  # of a function that it knows, every seed gives the same
    sampled: dict[str, Any] = {"temperature": 0.9, "top_p": 0.95, "max_tokens": 24}
    extra = {"top_k": 40, "min_p": 0.02, "repetition_penalty": 1.1}
    texts = [complete(client, prompt, seed=7, extra_body=extra, **sampled).choices[0].text for _ in range(2)]
    expected = nano.generate(
        prompt, seed=7, temperature=0.9, top_p=0.95, top_k=40, min_p=0.02, repetition_penalty=1.1,
        max_new_tokens=24,
    )  # fmt: skip
    assert texts == [expected.text] * 2
    other = complete(client, prompt, seed=8, extra_body=extra, **sampled).choices[0].text
    assert other != texts[0]


def test_token_ids_lists_and_n(client: Any, nano: Pipeline) -> None:
    ids = [nano.encode(prompt) for prompt in PROMPTS[:2]]
    expected = [complete(client, prompt).choices[0].text for prompt in PROMPTS[:2]]
    assert complete(client, ids[0]).choices[0].text == expected[0]
    assert [choice.text for choice in complete(client, ids).choices] == expected
    several = complete(client, PROMPTS[:2], n=3, temperature=1.0, seed=1, extra_body={"ignore_eos": True})
    assert [choice.index for choice in several.choices] == list(range(6))
    assert len({choice.text for choice in several.choices[:3]}) == 3
    assert several.usage.prompt_tokens == sum(map(len, ids))
    assert several.usage.completion_tokens == 6 * 24


def test_streamed_lists_of_prompts_are_whole(client: Any) -> None:
    whole = [choice.text for choice in complete(client, PROMPTS[:3], n=2, seed=3, temperature=1).choices]
    texts = [""] * 6
    finished = 0
    usage = None
    stream = complete(
        client, PROMPTS[:3], n=2, seed=3, temperature=1, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            finished += choice.finish_reason is not None
    assert texts == whole
    assert finished == 6
    assert usage is not None
    assert usage.completion_tokens > 6


def test_best_of_is_the_most_probable(client: Any) -> None:
    sampled: dict[str, Any] = {"temperature": 1.0, "seed": 5, "logprobs": 0, "max_tokens": 12}
    candidates = complete(client, PROMPTS[0], n=4, **sampled).choices
    best = max(candidates, key=lambda choice: np.mean(choice.logprobs.token_logprobs))
    chosen = complete(client, PROMPTS[0], best_of=4, **sampled).choices
    assert [choice.text for choice in chosen] == [best.text]


def test_a_completion_without_tokens_is_not_the_best() -> None:
    from pipelines.engine.sequence import TokenLogprob
    from pipelines.server.routes.openai.completions import mean_logprob
    from pipelines.text.chain import Delta, ScoredToken

    written = Delta("x", [1], [ScoredToken(TokenLogprob(1, -9.0, []), 0)], "stop")
    assert mean_logprob(Delta(finish="stop")) < mean_logprob(written) == -9.0


@pytest.mark.parametrize(("shown", "offsets"), [("x<|endoftext|>yé", [0, 1, 14, 15]), ("xyé", [0, 1, 1, 2])])
def test_offsets_of_a_prompt_are_those_of_its_text(nano: Pipeline, shown: str, offsets: list[int]) -> None:
    from pipelines.engine.sequence import TokenLogprob
    from pipelines.server.routes.openai.completions import Logprobs

    ids = [token for part in ("x", "<|endoftext|>", "y", "é") for token in nano.tokenizer.encode(part)]
    told = Logprobs(nano.tokenizer)
    told.add_prompt(shown, ids, [None, *(TokenLogprob(token, -1.0, []) for token in ids[1:])])
    assert told.text_offset[:4] == offsets


def test_prompt_logprobs_are_the_models(client: Any, nano: Pipeline) -> None:
    prompt = "def add(a, b):\n    return a + b\n" * 30  # more than one page, and a prefix that may be cached
    complete(client, prompt)
    answer = complete(client, prompt, echo=True, logprobs=5, max_tokens=0).choices[0]
    ids = nano.encode(prompt)
    expected = log_softmax(nano.logits(ids))
    scores = answer.logprobs.token_logprobs
    assert answer.text == prompt
    assert scores[0] is None
    np.testing.assert_allclose(scores[1:], [expected[i, ids[i + 1]] for i in range(len(ids) - 1)], atol=1e-5)
    assert all(len(top) in (5, 6) for top in answer.logprobs.top_logprobs[1:])
    assert "".join(answer.logprobs.tokens) == prompt
    pairs = zip(answer.logprobs.tokens, answer.logprobs.text_offset, strict=True)
    assert all(prompt[start:].startswith(token) for token, start in pairs)


def test_lm_eval_scores_a_continuation(client: Any, nano: Pipeline) -> None:
    context, continuation = nano.encode("def add(a, b):"), nano.tokenizer.encode("\n    return a")
    answer = complete(client, [context + continuation], echo=True, logprobs=1, max_tokens=1, temperature=0).choices[0]
    scores = answer.logprobs.token_logprobs[len(context) : -1]
    logits = log_softmax(nano.logits(context + continuation))
    rows = range(len(context) - 1, len(context) + len(continuation) - 1)
    expected = [logits[row, token] for row, token in zip(rows, continuation, strict=True)]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    tops = answer.logprobs.top_logprobs[len(context) : -1]
    greedy = [
        max(top, key=top.get) == token for top, token in zip(tops, answer.logprobs.tokens[len(context) :], strict=False)
    ]
    assert greedy == [int(logits[row].argmax()) == token for row, token in zip(rows, continuation, strict=True)]


def test_completion_logprobs_sum_to_the_text(client: Any) -> None:
    answer = complete(client, PROMPTS[0], logprobs=3).choices[0]
    assert "".join(answer.logprobs.tokens) == answer.text
    assert all(score <= 0 and math.isfinite(score) for score in answer.logprobs.token_logprobs)
    streamed: list[str] = []
    for chunk in complete(client, PROMPTS[0], logprobs=3, stream=True):
        streamed += chunk.choices[0].logprobs.tokens
    assert streamed == answer.logprobs.tokens


@pytest.mark.parametrize("stream", [False, True])
def test_stop_never_leaks(client: Any, stream: bool) -> None:
    text = complete(client, PROMPTS[0]).choices[0].text
    for stop in (text[3:8], [text[9:12], text[5:7]], text[-3:]):
        answer = complete(client, PROMPTS[0], stop=stop, stream=stream)
        chunks = list(answer) if stream else [answer]
        found = "".join(chunk.choices[0].text for chunk in chunks)
        stops = [stop] if isinstance(stop, str) else stop
        assert found == text[: min(text.find(part) for part in stops)]
        assert chunks[-1].choices[0].finish_reason == "stop"


def test_ignore_eos_and_finish_reasons(client: Any, nano: Pipeline) -> None:
    ids = [*nano.encode("x = 1\n"), nano.tokenizer.eos_token_id]
    ended = complete(client, ids, max_tokens=200, logprobs=0).choices[0]
    endless = complete(client, ids, max_tokens=200, extra_body={"ignore_eos": True})
    assert ended.finish_reason in ("stop", "length")
    assert endless.choices[0].finish_reason == "length"
    assert endless.usage.completion_tokens == 200


def test_the_length_limit_ends_a_completion(client: Any, nano: Pipeline) -> None:
    prompt = nano.tokenizer.encode("x = [" + "1, " * 500)[:1000]
    answer = complete(client, prompt, max_tokens=500, extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == 1024


def test_every_chunk_is_valid_utf8(client: Any, nano: Pipeline) -> None:
    prompt = "# 日本語 é 🎉 ünïcödé\ns = '日本語 🎉"
    sampled: dict[str, Any] = {"temperature": 1.5, "seed": 11, "max_tokens": 60}
    whole = complete(client, prompt, **sampled).choices[0].text
    pieces = [chunk.choices[0].text for chunk in complete(client, prompt, stream=True, **sampled)]
    assert "".join(pieces) == whole
    assert complete(client, prompt, echo=True, max_tokens=0).choices[0].text == prompt


def test_suffix_fills_the_gap(client: Any, nano: Pipeline) -> None:
    prefix, suffix = "def add(a, b):\n    total = ", "\n    return total\n"
    fim = nano.tokenizer.fim
    assert fim is not None
    encode = nano.tokenizer.encode
    assert fim.suffix_first
    assert nano.tokenizer.eos_token_id is not None
    opening = [nano.tokenizer.eos_token_id, fim.suffix]
    ids = [*opening, *encode(suffix), fim.prefix, *encode(prefix), fim.middle]
    expected = nano.generate(ids, max_new_tokens=24).text
    unhealed = complete(client, prefix, suffix=suffix, extra_body={"token_healing": False})
    assert unhealed.choices[0].text == expected
    assert complete(client, prefix, suffix=suffix).choices[0].text == nano.fill(prefix, suffix, max_new_tokens=24).text


def test_chat_completes_the_messages(client: Any, nano: Pipeline) -> None:
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Who won the world series in 2020?"},
    ]
    text = "\n".join(message["content"] for message in messages)
    expected = nano.generate(text, max_new_tokens=16).text
    chat: dict[str, Any] = {"model": "nano", "messages": messages, "temperature": 0, "max_tokens": 16}
    answer = client.chat.completions.create(**chat, logprobs=True, top_logprobs=2)
    assert answer.choices[0].message.content == expected
    assert "".join(token.token for token in answer.choices[0].logprobs.content) == expected
    stream = client.chat.completions.create(**chat, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content for c in chunks if c.choices) == expected
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage.completion_tokens == 16


def test_the_asynchronous_client(server: RunningServer, nano: Pipeline) -> None:
    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:

            async def one(prompt: str) -> str:
                stream = await client.completions.create(prompt=prompt, stream=True, **GREEDY)
                return "".join([chunk.choices[0].text async for chunk in stream])

            return list(await asyncio.gather(*map(one, PROMPTS)))

    assert asyncio.run(run()) == [nano.generate(prompt, max_new_tokens=24).text for prompt in PROMPTS]


def test_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["nano"]
    assert client.models.retrieve("nano").max_model_len == 1024
    with pytest.raises(openai.NotFoundError, match="'other' does not exist here; expected 'nano'"):
        client.models.retrieve("other")
