"""README and the pages of docs/: their shell blocks, their commands, their links and anchors."""

import pathlib
import re
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
# `<!-- not run: why -->` straight above a block says why no test runs or checks it.
_BLOCK = re.compile(r"(?:<!-- not run: ([^\n]*?) ?-->\n)?^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block. page: relative to the root. reason: why it is not run, or None. lines: as a shell reads them."""

    page: str
    language: str
    reason: str | None
    text: str

    @property
    def lines(self):
        joined = self.text.replace("\\\n", " ").splitlines()
        return [found for line in joined if (found := re.sub(r"(^|\s)#.*$", "", line).strip())]


def pages() -> list[pathlib.Path]:
    """README and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language="bash") -> list[Block]:
    """The fenced blocks of one language of all pages."""
    found = []
    for page in pages():
        for reason, _, name, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
            found.append(Block(page.relative_to(ROOT).as_posix(), name, reason or None, text))
    return [block for block in found if block.language == language]


def block_of(page, start, language="bash") -> Block:
    """The one block of a page that has `start` in it."""
    [found] = [block for block in blocks(language) if block.page == page and start in block.text]
    return found


def inline_commands() -> list[tuple[str, str]]:
    """(page, command) of what stands in a line as `python -m ...`, without what only marks a place."""
    found = []
    for page in pages():
        text = _without_code(page.read_text(encoding="utf-8"), inline=False).replace("\n  ", " ").replace("\n", " ")
        found += [(page.name, code) for code in re.findall(r"`(python -m [^`]+)`", text)]
    return [(page, re.sub(r"[\[\]]|\.\.\.", "", command).strip()) for page, command in found]


def links(page) -> list[str]:
    """What the links and images of a page point to."""
    return _LINK.findall(_without_code(page.read_text(encoding="utf-8")))


def headings(page) -> list[str]:
    """The headings of a page, as they are shown."""
    text = _without_code(page.read_text(encoding="utf-8"), inline=False)
    lines = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line).replace("`", "") for line in lines]


def _without_code(text, inline=True):
    """The text without fenced blocks and, where inline, without the code in its lines."""
    text = re.sub(r"^ *(`{3,}).*?^ *\1", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]+`", "", text) if inline else text
