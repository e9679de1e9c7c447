"""The pages of the documentation: their blocks, what is to be done with each, their links and anchors.

A block of commands or Python has a directive in an HTML comment on the line before it::

    <!-- run: op -->                                as the user "op"
    <!-- run: pi; until: "connected" -->            it goes on in the background after it has said that
    <!-- run: op; prints: "SUCCEEDED" -->           and its output has these words
    <!-- run: op; in place of: tctl_… : $TOKEN -->  with something else for a placeholder
    <!-- run: pi; file: my_actions.py -->           the block is what the file holds
    <!-- settings: broker -->                       TOML that the broker (or the agent) takes
    <!-- not run: the reason -->
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
COMMANDS = frozenset({"sh", "bash", "console", "python"})
"""Languages whose blocks need a directive."""

_KEYS = frozenset({"until", "prints", "in place of", "file"})


class PageError(Exception):
    """A page is not written as the tests can read it."""


class Block(NamedTuple):
    """A fenced block. ``line``: of its first line. ``comment``: the HTML comment before it."""

    page: str
    line: int
    language: str
    text: str
    comment: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


class Directive(NamedTuple):
    """What to do with a block. ``user`` is empty for one that is not run: ``reason`` says why."""

    user: str = ""
    reason: str = ""
    until: str = ""
    prints: tuple[str, ...] = ()
    placeholders: tuple[tuple[str, str], ...] = ()
    file: str = ""


def pages() -> list[Path]:
    """README and every page in docs/, decisions too."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(path: Path) -> list[Block]:
    """The fenced blocks of a page, in order; raises :class:`PageError` for one that does not end."""
    blocks, lines = [], path.read_text(encoding="utf-8").splitlines()
    name, comment, at = str(path.relative_to(ROOT)), "", 0
    while at < len(lines):
        opening = re.fullmatch(r"( *)```(\w*)", lines[at])
        if opening is None:
            found = re.fullmatch(r" *<!--\s*(.*?)\s*-->", lines[at])
            comment = found[1] if found else ""
            at += 1
            continue
        try:
            end = lines.index(f"{opening[1]}```", at + 1)
        except ValueError:
            raise PageError(f"{name}:{at + 1}: this block does not end") from None
        text = "\n".join(line.removeprefix(opening[1]) for line in lines[at + 1 : end]) + "\n"
        blocks.append(Block(name, at + 2, opening[2], text, comment))
        comment, at = "", end + 1
    return blocks


def indented_blocks(path: Path) -> list[int]:
    """Lines at which code begins that is indented and not fenced: such a block can have no directive."""
    found, fenced, before = [], False, ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= line.lstrip().startswith("```")
        if not fenced and line.startswith("    ") and not before.strip():
            found.append(number)
        before = line if line.strip() or not before.startswith("    ") else before
    return found


def directive_of(block: Block) -> Directive:
    """Read a block's comment; raises :class:`PageError` when it says nothing of use."""
    kind, _, rest = block.comment.partition(":")
    if kind == "not run" and rest.strip():
        return Directive(reason=rest.strip())
    if kind != "run" or not rest.strip():
        raise PageError(f"{block.place}: say before the block <!-- run: USER --> or <!-- not run: REASON -->")
    user, *parts = [part.strip() for part in rest.split(";")]
    directive = Directive(user=user)
    for part in parts:
        key, _, value = (word.strip() for word in part.partition(":"))
        if key not in _KEYS or not value:
            raise PageError(f"{block.place}: {part!r} is none of {sorted(_KEYS)}")
        directive = _with(directive, key, value)
    return directive


def _with(directive: Directive, key: str, value: str) -> Directive:
    value = value.strip('"')
    if key == "prints":
        return directive._replace(prints=(*directive.prints, value))
    if key == "in place of":
        old, _, new = value.partition(" : ")
        return directive._replace(placeholders=(*directive.placeholders, (old.strip('" '), new.strip('" '))))
    return directive._replace(**{key: value})


def filled_in(block: Block, directive: Directive) -> str:
    """The block as it is typed; raises :class:`PageError` for a placeholder that is not in it."""
    text = block.text
    for old, new in directive.placeholders:
        if old not in text:
            raise PageError(f"{block.place}: there is no {old!r} to put something in the place of")
        text = text.replace(old, new)
    return text


def anchors_of(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    found: set[str] = set()
    fenced = False
    for line in path.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        heading = re.match(r"#{1,6} +(.*)", line)
        if heading and not fenced:
            text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading[1])
            anchor = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
            same = sum(1 for other in found if re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other))
            found.add(f"{anchor}-{same}" if same else anchor)
    return found


def links_of(path: Path) -> list[tuple[int, str]]:
    """Line and target of each link and picture; what stands in code is none."""
    found, fenced = [], False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= line.lstrip().startswith("```")
        if not fenced:
            plain = re.sub(r"`[^`]*`", "", line)
            found += [(number, target) for target in re.findall(r"\]\(([^)\s]+)\)", plain)]
    return found
