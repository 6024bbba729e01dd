"""The pages of the docs as data: headings, links, fenced blocks, commands and prose.

Only the Markdown that the docs use is understood: `#` headings, fenced blocks that begin at the margin, tables, lists and inline links.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
DOCS: Final = ROOT / "docs"
FRONT: Final = tuple(
    ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
)

_FENCE: Final = re.compile(r"^```(?P<kind>[\w-]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_CODE: Final = re.compile(r"`[^`]*`")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?:])[)\"*]*\s+(?=[\"(*`A-Z0-9])")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        kind: the word behind the fence.
        line: the line of the fence, from 1.
    """

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page, those at the front first."""
    return [path for path in (*FRONT, *sorted(DOCS.rglob("*.md"))) if path.is_file()]


def blocks(*kinds: str) -> list[Block]:
    """The fenced blocks of all pages. If kinds are named, only the blocks of those."""
    found = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, match["kind"], match["text"]))
    return [block for block in found if not kinds or block.kind in kinds]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """The targets of all inline links of a page."""
    return _LINK.findall(_CODE.sub("`code`", prose(page)))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    return {_slug(heading) for heading in _HEADING.findall(prose(page))}


def _slug(heading: str) -> str:
    plain = re.sub(r"[^\w\- ]", "", heading.lower())
    return plain.strip().replace(" ", "-")


def sentences(page: Path) -> Iterator[str]:
    """The sentences of a page's prose. Tables, headings and code are left out. Inline code counts as one word."""
    paragraph: list[str] = []
    for line in [*prose(page).splitlines(), ""]:
        is_item = bool(re.match(r"\s*(?:[-*]|\d+\.) ", line))
        is_left_out = line.lstrip().startswith(("|", "#"))
        if not line.strip() or is_left_out or is_item:
            yield from _split(" ".join(paragraph))
            paragraph = []
        if line.strip() and not is_left_out:
            paragraph.append(re.sub(r"^\s*(?:[-*]|\d+\.) ", "", line).strip())


def _split(paragraph: str) -> Iterator[str]:
    text = _CODE.sub("Code", _LINK.sub("Link", paragraph))
    yield from (sentence for sentence in _SENTENCE_END.split(text) if sentence.strip())


def commands(text: str) -> list[list[str]]:
    """The commands of a `console` block, as words: the lines that begin with `$ `, without remarks. `&&` and `|` separate two commands."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found: list[list[str]] = []
    for line in joined.splitlines():
        if line.startswith("$ "):
            found += _commands_of(line[2:])
    return found


def _commands_of(line: str) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[list[str]] = [[]]
    for word in lexer:
        if word in ("&&", "|", ";"):
            words.append([])
        else:
            words[-1].append(word)
    return [one for one in words if one]
