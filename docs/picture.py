"""Makes docs/page.png, the picture of the page: a server with nano, Debian's Chromium, one screenshot.

    python -m docs.picture

The picture carries the digest of the page's files, so that a test notices when it shows an older page.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

PICTURE = Path(__file__).parent / "page.png"
SHIPPED = Path(__file__).parent.parent / "pipelines" / "server" / "page"
_KEYWORD = b"page-sha256\0"


def digest() -> str:
    """sha256 over what a browser shows of the page."""
    found = hashlib.sha256()
    for name in ("index.html", "page.css", "page.js", "icon.svg"):
        found.update((SHIPPED / name).read_bytes())
    return found.hexdigest()


def stamped(picture: bytes, text: str) -> bytes:
    """A PNG with the digest in a text chunk before its last chunk, which has twelve bytes."""
    content = b"tEXt" + _KEYWORD + text.encode()
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return picture[:-12] + chunk + picture[-12:]


def recorded(picture: bytes) -> str:
    """The digest that a PNG was stamped with; "" if with none."""
    _, found, rest = picture.partition(b"tEXt" + _KEYWORD)
    return rest[:64].decode() if found else ""


def main() -> None:
    """Takes the picture."""
    from tests.browser import Tab, launched
    from tests.running_server import RunningServer

    with RunningServer() as server, launched() as browser:
        tab = Tab(browser, server.wait_ready().url)
        tab.page.set_viewport_size({"width": 1240, "height": 780})
        tab.open()
        for _ in range(4):  # while the strip asks, so that it shows figures of a server at work
            tab.page.keyboard.press("Control+Space")
            tab.page.wait_for_timeout(1100)
        tab.settled()
        tab.page.hover(".ghost .token >> nth=3")
        PICTURE.write_bytes(stamped(tab.page.screenshot(), digest()))
        tab.close()


if __name__ == "__main__":
    main()
