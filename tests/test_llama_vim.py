"""llama.vim from its repository in a real Neovim and a real Vim, default settings but the endpoint, in a terminal.

Run where the plugin and an editor are:

    git clone https://github.com/ggml-org/llama.vim /tmp/llama.vim
    LLAMA_VIM=/tmp/llama.vim pytest tests/test_llama_vim.py       (needs tmux, curl, and nvim or vim on the PATH)
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from running_server import RunningServer

PLUGIN = os.environ.get("LLAMA_VIM", "")
NEEDED = [name for name in ("tmux", "curl") if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(not PLUGIN or bool(NEEDED), reason="needs LLAMA_VIM, tmux and curl")

CODE = "import os\n\n\ndef add(a, b):\n    return \n\n\nprint(add(1, 2))\n"


class Terminal:
    """An editor in a terminal of its own."""

    def __init__(self, command: list[str], name: str) -> None:
        self._name = name
        self._tmux("new-session", "-d", "-x", "160", "-y", "40", "-s", name, *command)

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(["tmux", "-L", self._name, *arguments], capture_output=True, text=True)
        return done.stdout

    def keys(self, *keys: str) -> None:
        """Types: texts as they are, and keys by tmux's names."""
        for key in keys:
            self._tmux("send-keys", "-t", self._name, key)
            time.sleep(0.2)

    def screen(self) -> str:
        """What is shown."""
        return self._tmux("capture-pane", "-p", "-t", self._name)

    def wait(self, condition: Callable[[str], bool], seconds: float = 40) -> str:
        """The screen, once it is as wanted."""
        end = time.monotonic() + seconds
        while not condition(screen := self.screen()):
            assert time.monotonic() < end, screen
            time.sleep(0.1)
        return screen

    def end(self) -> None:
        """Closes it, whatever it shows."""
        self._tmux("kill-server")


@pytest.fixture(params=["nvim", "vim"])
def editor(request: pytest.FixtureRequest, server: RunningServer, tmp_path: Path) -> Iterator[Terminal]:
    program = shutil.which(request.param)
    if program is None:
        pytest.skip(f"needs {request.param}")
    settings = tmp_path / "init.vim"
    settings.write_text(
        f"set nocompatible noswapfile\nset rtp^={PLUGIN}\n"
        f"let g:llama_config = {{'endpoint_fim': '{server.url}/infill', "
        f"'endpoint_inst': '{server.url}/v1/chat/completions'}}\n"
        f"filetype plugin on\n"
    )
    (tmp_path / "code.py").write_text(CODE)
    (tmp_path / "other.py").write_text("def other(x):\n    return x\n" * 40)
    terminal = Terminal(
        [program, "-u", str(settings), str(tmp_path / "code.py")], f"replit-{request.param}-{os.getpid()}"
    )
    try:
        terminal.wait(lambda screen: "def add" in screen)
        yield terminal
    finally:
        terminal.end()


def line(screen: str, beginning: str) -> str:
    return next((text for text in screen.splitlines() if beginning in text), "")


def test_ghost_text_and_tab(editor: Terminal, tmp_path: Path) -> None:
    editor.keys("5G", "A")  # at the end of "    return "
    shown = editor.wait(lambda screen: bool(re.search(r"return +\S", line(screen, "    return"))))
    assert "add(a, b)" in shown
    editor.keys("Tab", "Escape")
    editor.keys(":w", "Enter")
    accepted = wait_for_file(tmp_path / "code.py", lambda text: text != CODE)
    assert accepted.startswith("import os\n\n\ndef add(a, b):\n    return ")
    assert accepted.endswith("\n\n\nprint(add(1, 2))\n")
    assert re.search(r"return +\S", accepted)


def test_other_files_warm_the_cache(editor: Terminal, server: RunningServer, tmp_path: Path) -> None:
    before = server.log.count("route=/infill")
    editor.keys(f":e {tmp_path}/other.py", "Enter", "10G", ":w", "Enter", ":b1", "Enter")
    end = time.monotonic() + 40
    while server.log.count("route=/infill") == before:
        assert time.monotonic() < end, server.log[-2000:]
        time.sleep(0.2)
    lines = [text for text in server.log.splitlines() if "route=/infill" in text]
    assert "status=200" in lines[-1]
    assert "generated_tokens=0" in lines[-1]


def test_an_instruction_replaces_the_selection(editor: Terminal, tmp_path: Path) -> None:
    editor.keys("4G", "V", "j", "\\lli")
    editor.wait(lambda screen: "Instruction:" in screen)
    editor.keys("write it in one line", "Enter")
    editor.wait(lambda screen: "ready" in screen.lower() or "Tab" in screen or "Result" in screen, 90)
    time.sleep(1)
    editor.keys("Tab")
    time.sleep(1)
    editor.keys(":w", "Enter")
    edited = wait_for_file(tmp_path / "code.py", lambda text: text != CODE)
    assert edited.startswith("import os\n\n\n")
    assert edited.endswith("\n\n\nprint(add(1, 2))\n")
    assert edited.removeprefix("import os\n\n\n").removesuffix("\n\n\nprint(add(1, 2))\n").strip()


def wait_for_file(path: Path, condition: Callable[[str], bool], seconds: float = 20) -> str:
    end = time.monotonic() + seconds
    while not condition(text := path.read_text()):
        assert time.monotonic() < end, text
        time.sleep(0.1)
    return text
