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
from contextlib import contextmanager
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


@contextmanager
def opened(name: str, url: str, folder: Path) -> Iterator[Terminal]:
    """The editor with a file in it, and the plugin asking this server."""
    program = shutil.which(name)
    if program is None or too_old(program):
        pytest.skip(f"needs {name} (Vim from 9.1 on, as the plugin does)")
    settings = folder / "init.vim"
    settings.write_text(
        f"set nocompatible noswapfile\nset rtp^={PLUGIN}\n"
        f"let g:llama_config = {{'endpoint_fim': '{url}/infill', 'endpoint_inst': '{url}/v1/chat/completions'}}\n"
        f"filetype plugin on\n"
    )
    (folder / "code.py").write_text(CODE)
    (folder / "other.py").write_text("def other(x):\n    return x\n" * 40)
    terminal = Terminal([program, "-u", str(settings), str(folder / "code.py")], f"replit-{name}-{os.getpid()}")
    try:
        terminal.wait(lambda screen: "def add" in screen)
        yield terminal
    finally:
        terminal.end()


@pytest.fixture(params=["nvim", "vim"])
def editor(request: pytest.FixtureRequest, server: RunningServer, tmp_path: Path) -> Iterator[Terminal]:
    with opened(request.param, server.url, tmp_path) as terminal:
        yield terminal


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A model whose answer to a prompt that ends in F is known."""
    from running_server import RunningServer
    from scripted_model import write_scripted

    path = write_scripted(tmp_path_factory.mktemp("scripted") / "scripted.gguf")
    with RunningServer("--model", str(path), "--max-length", "4096", "--allow-longer") as running:
        yield running.wait_ready()


def too_old(program: str) -> bool:
    """Whether it is a Vim that the plugin refuses."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    found = re.match(r"VIM - Vi IMproved (\d+)\.(\d+)", told)
    return found is not None and (int(found[1]), int(found[2])) < (9, 1)


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


@pytest.mark.parametrize("name", ["nvim", "vim"])
def test_an_instruction_replaces_the_selection(scripted: RunningServer, name: str, tmp_path: Path) -> None:
    """With the answer of a model whose answer is known, which Tab accepts."""
    with opened(name, scripted.url, tmp_path) as editor:
        editor.keys("4G", "V", "j", "\\lli")
        editor.wait(lambda screen: "Instruction:" in screen)
        editor.keys("as in F", "Enter")
        editor.wait(lambda screen: "foooST" in screen and "Generating" not in screen)
        editor.keys("Tab", ":w", "Enter")
        edited = wait_for_file(tmp_path / "code.py", lambda text: text != CODE)
    assert edited == "import os\n\n\nfoooST\n\n\nprint(add(1, 2))\n"


def wait_for_file(path: Path, condition: Callable[[str], bool], seconds: float = 20) -> str:
    end = time.monotonic() + seconds
    while not condition(text := path.read_text()):
        assert time.monotonic() < end, text
        time.sleep(0.1)
    return text
