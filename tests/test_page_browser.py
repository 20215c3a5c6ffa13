"""The page in a browser: ghost text and its keys, look inside, settings, copying, the key, accessibility, speed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import PAGE_SOURCES, Tab, launched, missing

import weights

if TYPE_CHECKING:
    from running_server import RunningServer

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(any(find_spec(name) is None for name in ("fastapi", "zmq")), reason="needs the extra serve"),
]

LAST = "def last(values):\n    return"
AXE = PAGE_SOURCES / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as running:
        yield running


@pytest.fixture
def tab(browser: Any, server: RunningServer) -> Iterator[Tab]:
    """The page with its example completed; nothing forbidden was seen at the end."""
    opened = Tab(browser, server.url).open()
    yield opened
    opened.close()


def test_the_example_is_completed_at_once(tab: Tab) -> None:
    assert "class Stack:" in tab.text
    assert tab.ghost
    assert tab.ghost not in tab.text
    assert tab.page.inner_text("#state") == "ready"
    assert tab.page.inner_text("#model") == "nano"
    assert re.match(r"first token \d+ ms · \d+ tokens", tab.page.inner_text("#figures"))


def test_ghost_text_comes_within_300_ms(tab: Tab) -> None:
    """From the last key of a line to grey text on the screen, the best of five; other work only adds to it."""
    spent = []
    for name in "abcde":
        tab.clear()
        tab.page.keyboard.insert_text(f"class {name.upper()}:\n    def __init__(self, {name}):\n        self.{name}")
        begun = time.monotonic()
        tab.page.keyboard.type(" ")
        tab.page.wait_for_selector(".ghost", timeout=10_000)
        spent.append((time.monotonic() - begun) * 1000)
        tab.settled()
    print("ghost text after", [round(ms) for ms in spent], "ms")
    assert min(spent) < 300, spent


def test_tab_takes_all_and_the_next_is_asked_for(tab: Tab) -> None:
    before, ghost = tab.text, tab.ghost
    with tab.page.expect_request(f"{tab.url}/v1/completions") as asked:
        tab.page.keyboard.press("Tab")
    cut = before.index("__len__(") + len("__len__(")
    assert tab.text == before[:cut] + ghost + before[cut:]
    assert json.loads(asked.value.post_data)["prompt"] == before[:cut] + ghost


def test_a_word_then_a_line_then_none(tab: Tab) -> None:
    whole = tab.ghost
    tab.page.keyboard.press("Control+ArrowRight")
    word = re.match(r"\s*(\w+|[^\w\s]+)", whole)
    assert word is not None
    assert tab.ghost == whole[word.end() :]
    assert f"__len__({word[0]}" in tab.text
    rest = tab.ghost
    tab.page.keyboard.press("Control+Enter")
    line = rest.partition("\n")[0]
    assert f"__len__({word[0]}{line}\n" in tab.text
    assert tab.ghost == rest[len(line) :]
    before = tab.text
    tab.page.keyboard.press("Escape")
    assert (tab.ghost, tab.text) == ("", before)
    tab.page.wait_for_timeout(400)
    assert tab.ghost == ""  # dismissed is not asked for again
    tab.page.keyboard.press("Control+Space")
    assert tab.settled()


def test_buttons_do_what_the_keys_do(tab: Tab) -> None:
    whole, before = tab.ghost, tab.text
    tab.page.click("#take-line")
    assert tab.text == before.replace("__len__(", "__len__(" + whole.partition("\n")[0])
    tab.settled()
    tab.page.click("#dismiss")
    assert tab.ghost == ""
    assert tab.page.is_disabled("#take-all")


def test_typing_what_is_suggested_keeps_it(tab: Tab) -> None:
    whole = tab.ghost
    count = len([url for _, url in tab.requests if url.endswith("/v1/completions")])
    tab.page.keyboard.insert_text(whole[0])
    assert tab.ghost == whole[1:]
    tab.page.wait_for_timeout(300)
    assert tab.ghost == whole[1:]
    assert len([url for _, url in tab.requests if url.endswith("/v1/completions")]) == count


def test_the_next_key_ends_what_runs(tab: Tab, server: RunningServer) -> None:
    """The server's log says 499 for the request whose answer was no longer wanted."""
    before = server.log.count("route=/v1/completions status=499")
    tab.page.check("input[name=completion][value=full]", force=True)
    tab.page.fill("#max_tokens", "256")
    tab.clear()
    for number in range(20):
        tab.page.keyboard.insert_text(f"x{number} = [")
        tab.page.wait_for_selector(".ghost", timeout=10_000)
        tab.page.keyboard.press("Enter")
        if server.log.count("route=/v1/completions status=499") > before:
            break
    tab.page.click("#enabled")
    server.wait_idle()
    assert server.log.count("route=/v1/completions status=499") > before


def test_a_token_shows_its_candidates(tab: Tab) -> None:
    buttons = tab.page.locator("#tokens button")
    assert buttons.count() == tab.page.locator(".ghost .token").count()
    buttons.last.focus()
    shown = tab.page.locator("#candidates .candidate")
    assert shown.count() >= 6
    assert shown.locator("xpath=self::*[contains(@class, 'taken')]").count() == 1
    shares = [float(text.strip(" <%")) for text in tab.page.locator("#candidates .percent").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 100.5
    assert re.search(r", (< )?[\d.]+ %$", buttons.last.get_attribute("aria-label") or "")
    tab.page.hover(".ghost .token >> nth=0")
    assert tab.page.locator("#popover .candidate").count() >= 6
    tab.page.hover("h1")
    assert tab.page.is_hidden("#popover")


def test_what_the_model_was_sent(tab: Tab) -> None:
    tab.page.wait_for_function("() => document.querySelector('#sent .marker')")
    assert tab.page.locator("#sent .marker").all_inner_texts() == ["end of text", "suffix", "prefix", "middle"]
    assert "def pop(self):" in tab.page.inner_text("#sent")
    assert re.match(
        r"fill in the middle · \d+ tokens · whole( · “.+” taken back)? · \d+ from the cache",
        tab.page.inner_text("#sent-figures"),
    )


def test_settings_change_the_request(tab: Tab) -> None:
    with tab.page.expect_request(f"{tab.url}/v1/completions") as asked:
        tab.page.fill("#max_tokens", "8")
    assert json.loads(asked.value.post_data)["max_tokens"] == 8
    tab.settled()
    assert tab.page.locator("#tokens button").count() <= 8
    with tab.page.expect_request(f"{tab.url}/v1/completions") as asked:
        tab.page.check("input[name=completion][value=line]", force=True)
    assert json.loads(asked.value.post_data)["completion"] == "line"
    assert "\n" not in tab.settled()
    with tab.page.expect_request(f"{tab.url}/v1/completions") as asked:
        tab.page.fill("#temperature", "0.8")
    assert json.loads(asked.value.post_data)["temperature"] == 0.8


@pytest.mark.parametrize("language", ["javascript", "typescript", "java", "cpp", "go", "rust"])
def test_every_language_has_code_and_colours(tab: Tab, language: str) -> None:
    tab.page.select_option("#language", language)
    tab.page.wait_for_selector(".c-keyword")
    assert "class Stack:" not in tab.text
    assert tab.page.locator("[class^=c-]").count() > 3
    assert tab.page.is_visible("#python-only")


def test_a_word_that_has_begun_is_completed(tab: Tab) -> None:
    """Inside a token, and at the beginning of a file."""
    tab.clear()
    tab.page.keyboard.insert_text("def fibon")
    assert tab.settled().startswith("acci")
    tab.page.keyboard.press("Control+Home")
    tab.page.keyboard.press("Control+Space")
    tab.page.wait_for_function("() => document.querySelector('#tokens').getAttribute('aria-busy') === 'false'")
    assert "def fibon" in tab.text


@pytest.mark.parametrize("name", ["curl", "Python"])
def test_what_is_copied_runs_and_gives_the_same(tab: Tab, name: str) -> None:
    """The request's own text: quotes, backslashes and line ends in the code survive the shell and Python."""
    tab.clear()
    tab.page.keyboard.insert_text("names = ['it\\'s', \"é\\n\"]\n\ndef first(names):\n    return")
    ghost = tab.settled()
    tab.page.click(f"#request button.tab:text-is('{name}')")
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.page.click("#request .copy")
    text = tab.page.evaluate("() => navigator.clipboard.readText()")
    assert text == tab.page.text_content("#request-panel")
    command = ["bash", "-c", text] if name == "curl" else [sys.executable, "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)["choices"][0]["text"] if name == "curl" else done.stdout[:-1]
    assert answer == ghost


def test_editors_get_this_server(tab: Tab, server: RunningServer) -> None:
    names = tab.page.locator("#connect button.tab").all_inner_texts()
    assert "llama.vim" in names
    assert "Continue" in names
    for name in names:
        tab.page.click(f"#connect button.tab:text-is('{name}')")
        assert server.url in tab.page.inner_text("#connect-panel")
        assert "{{" not in tab.page.inner_text("#connect-panel")


def test_the_strip_follows_the_server(tab: Tab) -> None:
    tab.page.wait_for_function("() => /^\\d+$/.test(document.querySelector('#rate').textContent)", timeout=10_000)
    assert tab.page.inner_text("#encoding") == "bfloat16"
    assert re.search(r"\d+ cores?$", tab.page.inner_text("#machine"))
    assert tab.page.inner_text("#running").isdigit()
    assert re.match(r"\d+ %", tab.page.inner_text("#cache"))


def test_the_keyboard_reaches_everything_and_leaves_the_editor(tab: Tab) -> None:
    tab.page.focus(".cm-content")
    tab.page.keyboard.press("Escape")  # the suggestion
    tab.page.keyboard.press("Escape")  # then Tab leaves
    tab.page.keyboard.press("Tab")
    reached = set()
    for _ in range(80):
        place = "() => document.activeElement.id || document.activeElement.className"
        reached.add(tab.page.evaluate(place))
        tab.page.keyboard.press("Tab")
    assert {"language", "theme", "temperature", "top_k", "max_tokens", "sent", "request-panel"} <= reached
    tab.page.focus("#request button.tab >> nth=0")
    tab.page.keyboard.press("ArrowRight")
    assert tab.page.get_attribute("#request button.tab >> nth=1", "aria-selected") == "true"


def test_a_screen_reader_is_told_the_suggestion(tab: Tab) -> None:
    assert tab.page.text_content("#said") == f"Suggestion: {tab.ghost}"
    assert tab.page.get_attribute("#said", "aria-live") == "polite"
    assert tab.page.get_attribute(".ghost", "aria-hidden") == "true"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 900, 1440])
def test_no_serious_finding_of_axe(browser: Any, server: RunningServer, scheme: str, width: int) -> None:
    if not AXE.is_file():
        pytest.skip("needs axe-core: npm ci --prefix page")
    tab = Tab(browser, server.url, color_scheme=scheme)
    tab.page.set_viewport_size({"width": width, "height": 900})
    tab.open()
    tab.page.evaluate(AXE.read_text())
    found = tab.page.evaluate("() => axe.run()")["violations"]
    lines = [f"{v['impact']} {v['id']}: {v['nodes'][0]['html'][:200]}" for v in found]
    assert not [line for line in lines if line.startswith(("serious", "critical"))], lines
    wide = tab.page.evaluate("() => document.documentElement.scrollWidth")
    assert wide <= width
    tab.close()


def test_the_theme_can_be_chosen_and_stays(tab: Tab) -> None:
    colour = "() => getComputedStyle(document.body).backgroundColor"
    light = tab.page.evaluate(colour)
    tab.page.click("#theme")
    tab.page.click("#theme")
    dark = tab.page.evaluate(colour)
    assert dark != light
    tab.page.reload()
    assert tab.page.evaluate(colour) == dark


@pytest.fixture
def troubled(browser: Any, server: RunningServer) -> Iterator[Tab]:
    """A tab that is not open yet, whose console may have errors."""
    tab = Tab(browser, server.url)
    yield tab
    tab.context.close()


def asked(tab: Tab) -> int:
    """How often a completion was asked for."""
    return len([url for _, url in tab.requests if url.endswith("/v1/completions")])


def refuse(tab: Tab, code: str) -> None:
    """Has all completions refused."""
    body = json.dumps({"error": {"message": "refused for a test", "code": code}})
    tab.page.route("**/v1/completions", lambda route: route.fulfill(status=400, body=body))


def test_metrics_that_a_proxy_keeps_to_itself_are_not_missed(troubled: Tab) -> None:
    troubled.page.route("**/metrics", lambda route: route.fulfill(status=403, body="no"))
    troubled.open()
    troubled.page.wait_for_timeout(2500)
    assert asked(troubled) == 1
    assert troubled.page.inner_text("#state") == "ready"
    assert not troubled.page.inner_text("#running").isdigit()


def test_a_server_that_was_started_again_is_waited_for(troubled: Tab) -> None:
    """It answers 503 while it loads, and may have another model then."""
    troubled.open()
    troubled.page.route("**/page/state", lambda route: route.fulfill(json={"model": "loading", "key": "none"}))
    troubled.page.route("**/metrics", lambda route: route.fulfill(status=503, body="{}"))
    troubled.page.wait_for_function("() => document.querySelector('#state').textContent === 'loading'")


@pytest.mark.parametrize("fills", [True, False])
def test_what_does_not_fit_is_told_and_not_asked_for_ever(troubled: Tab, fills: bool) -> None:
    """A continuation is tried with less text before it."""
    props = {"model_path": "m", "fill_in_the_middle": fills, "default_generation_settings": {"n_ctx": 64}}
    troubled.page.route("**/props", lambda route: route.fulfill(json=props))
    refuse(troubled, "context_length_exceeded")
    troubled.open(ghost=False)
    troubled.page.wait_for_function("() => document.querySelector('#note').textContent === 'refused for a test'")
    count = asked(troubled)
    assert count == 1 if fills else 1 < count < 8
    troubled.page.wait_for_timeout(500)
    assert asked(troubled) == count
    troubled.page.unroute("**/v1/completions")
    troubled.page.fill("#max_tokens", "8")
    troubled.settled()


def test_line_ends_of_another_system(troubled: Tab) -> None:
    part = {"tokens": ["a\r\n", "b"], "token_logprobs": [0, 0], "top_logprobs": [{}, {}], "text_offset": [0, 3]}
    choice = {"text": "a\r\nb", "logprobs": part, "finish_reason": "stop"}
    body = f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n"
    sent = {"body": body, "content_type": "text/event-stream"}
    troubled.page.route("**/v1/completions", lambda route: route.fulfill(**sent))
    troubled.open()
    troubled.clear()
    troubled.page.keyboard.insert_text("x")
    assert troubled.settled() == "a\nb"
    troubled.page.keyboard.press("Tab")
    troubled.page.keyboard.insert_text("c")
    assert troubled.text == "xa\nbc"
    assert not troubled.wrong


def test_a_browser_that_keeps_nothing(troubled: Tab) -> None:
    troubled.page.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, name, { get() { throw new DOMException('', 'SecurityError') } })"
    )
    troubled.open()
    troubled.page.click("#theme")
    assert troubled.page.get_attribute("html", "data-theme") == "light"
    assert not troubled.wrong


def test_the_key_is_asked_for_until_it_comes(browser: Any, with_key: RunningServer) -> None:
    """Whatever is pressed; and a server that is away has not refused it."""
    tab = Tab(browser, with_key.url).open(ghost=False)
    tab.page.wait_for_selector("#key-dialog[open]")
    for _ in range(3):
        tab.page.keyboard.press("Escape")
        tab.page.wait_for_timeout(100)
    assert tab.page.is_visible("#key-dialog")
    tab.context.set_offline(True)
    tab.page.fill("#key", KEY)
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_function(
        "() => document.querySelector('#key-error').textContent === 'The server does not answer.'"
    )
    tab.context.close()


def test_a_suggestion_is_undone_by_itself(tab: Tab) -> None:
    tab.page.keyboard.press("Tab")
    taken = tab.text
    tab.page.keyboard.type("xy")
    tab.page.keyboard.press("Control+z")
    assert tab.text == taken


def test_without_suggest_only_who_asks_is_answered(tab: Tab) -> None:
    """What is waited for when it is switched off does not come; nor after a browser has gone back to the page."""
    tab.page.keyboard.insert_text("x")
    tab.page.uncheck("#enabled")
    count = asked(tab)
    tab.page.focus(".cm-content")
    tab.page.keyboard.insert_text("y")
    tab.page.wait_for_timeout(400)
    assert (tab.ghost, asked(tab)) == ("", count)
    tab.page.keyboard.press("Control+Space")
    assert tab.settled()
    tab.page.goto("about:blank")
    tab.page.go_back()
    tab.page.wait_for_function("() => document.querySelector('#state').textContent === 'ready'")
    if tab.page.is_checked("#enabled"):  # this browser does not bring it back as it was
        assert tab.settled()
    tab.page.wait_for_timeout(400)
    assert bool(tab.ghost) == tab.page.is_checked("#enabled")


def test_a_text_is_not_cut_within_a_character(tab: Tab) -> None:
    tab.clear()
    with tab.page.expect_response(f"{tab.url}/v1/completions") as answered:
        tab.page.keyboard.insert_text("\U0001f600" * 10_000 + "x")
    assert json.loads(answered.value.request.post_data)["prompt"].encode()
    assert answered.value.ok


KEY = "schlüssel"  # which a browser would send in Latin-1


@pytest.fixture(scope="module")
def with_key() -> Iterator[RunningServer]:
    from running_server import RunningServer

    with RunningServer("--api-key", KEY) as server:
        yield server.wait_ready()


def test_the_key_is_asked_for_once_and_kept_in_the_tab(browser: Any, with_key: RunningServer) -> None:
    tab = Tab(browser, with_key.url).open(ghost=False)
    tab.page.wait_for_selector("#key-dialog[open]")
    tab.page.fill("#key", "wrong")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_function("() => document.querySelector('#key-error').textContent !== ''")
    assert tab.page.is_visible("#key-dialog")
    tab.page.fill("#key", KEY)
    tab.page.keyboard.press("Enter")
    assert tab.settled()
    assert not tab.page.is_visible("#key-dialog")
    assert KEY not in (tab.page.text_content("body") or "")
    assert "$REPLIT_API_KEY" in (tab.page.text_content("#request-panel") or "")
    tab.page.reload()
    assert tab.settled()
    assert not tab.page.is_visible("#key-dialog")
    assert KEY not in with_key.log
    other = Tab(browser, with_key.url).open(ghost=False)
    other.page.wait_for_selector("#key-dialog[open]")
    for closed in (tab, other):
        closed.close()


def test_opened_while_the_model_loads_it_begins_by_itself(browser: Any) -> None:
    from running_server import RunningServer

    with RunningServer() as server:
        tab = Tab(browser, server.url).open(ghost=False)
        tab.page.wait_for_function("() => document.querySelector('#state').textContent === 'loading'")
        server.wait_ready()
        assert tab.settled()
        tab.close()


def test_first_paint_within_300_ms(browser: Any, server: RunningServer) -> None:
    """With an empty cache, in one of at most twelve visits; what else runs on the machine only adds to it."""
    script = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    spent: list[float] = []
    while len(spent) < 12 and min(spent, default=300) >= 300:
        tab = Tab(browser, server.url).open()
        spent.append(tab.page.evaluate(script))
        tab.close()
    print("first paint after", [round(ms) for ms in spent], "ms")
    assert min(spent) < 300, spent


def test_half_a_minute_of_typing_leaves_nothing_behind(tab: Tab, server: RunningServer) -> None:
    """Ten characters a second. Afterwards nothing runs, and the tab has the memory that it had."""
    session = tab.context.new_cdp_session(tab.page)

    def memory() -> tuple[int, int]:
        tab.clear()
        tab.page.wait_for_timeout(500)
        session.send("HeapProfiler.collectGarbage")
        counted = session.send("Memory.getDOMCounters")
        return session.send("Runtime.getHeapUsage")["usedSize"], counted["nodes"]

    def type_for(seconds: float) -> None:
        end = time.monotonic() + seconds
        text = "def area(width, height):\n    return width * height\n\nfor n in range(10):\n    print(n)\n\n"
        while time.monotonic() < end:
            for character in text:
                due = time.monotonic() + 0.1
                tab.page.keyboard.press("Enter") if character == "\n" else tab.page.keyboard.insert_text(character)
                tab.page.wait_for_timeout(max((due - time.monotonic()) * 1000, 0))

    type_for(4)
    heap, nodes = memory()
    type_for(30)
    heap_after, nodes_after = memory()
    server.wait_idle(5)
    assert server.metric("replit_cache_pages_used") == 0
    print(f"heap {heap / 1e6:.1f} to {heap_after / 1e6:.1f} MB, nodes {nodes} to {nodes_after}")
    assert heap_after < heap + 2e6
    assert nodes_after < nodes + 300


@pytest.fixture(scope="module")
def continuing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """nano without its marker tokens, as V1.5 is, and with sequences of 128 tokens."""
    from running_server import RunningServer

    nano = Path(weights.__file__).parent / "embedded" / "nano.gguf"
    path = tmp_path_factory.mktemp("model") / "continuing.gguf"
    path.write_bytes(nano.read_bytes().replace(b"fim_", b"not_"))
    options = ["--weight-path", str(path), "--max-length", "128", "--served-model-name", "continuing"]
    with RunningServer(*options) as server:
        yield server.wait_ready()


def test_a_model_without_fill_in_the_middle_continues(browser: Any, continuing: RunningServer) -> None:
    """A text that is longer than the model's sequences is cut before the request, which would be refused whole."""
    tab = Tab(browser, continuing.url).open()
    tab.page.wait_for_function("() => document.querySelector('#sent-figures').textContent")
    assert tab.page.inner_text("#sent-figures").startswith("continuation · ")
    assert "from what stands before it" in tab.page.inner_text("#lead")
    tab.clear()
    with tab.page.expect_request(f"{tab.url}/v1/completions") as asked:
        tab.page.keyboard.insert_text(
            "def first(values):\n    return values[0]\n\n\n" * 40 + "def last(values):\n    return"
        )
    body = json.loads(asked.value.post_data)
    assert "suffix" not in body
    tab.page.click("#request button.tab:text-is('Python')")
    python = tab.page.text_content("#request-panel")
    compile(python, "copied", "exec")
    assert '"token_healing": True' in python
    assert body["prompt"].endswith("\n" + LAST)
    tab.settled()
    tab.page.wait_for_function("() => document.querySelector('#sent-figures').textContent.includes('cut to fit')")
    tab.close()
