"""What to suggest for a name that is not known. Pure.

>>> unknown_action("watre", ["water", "flush"])
"this device has no action named 'watre'; did you mean 'water'? It has: water, flush"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LISTED_MAX: Final = 400
"""Characters of names in one message."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'this'?`` for the closest known word, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 - seldom needed, and an agent stays small

    lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), lower, n=1)
    return f"; did you mean {lower[close[0]]!r}?" if close else ""


def unknown_action(name: str, known: Sequence[str]) -> str:
    """Say that there is no such action, and which there are; at most about 700 characters."""
    text = f"this device has no action named {name!r}"
    if not known:
        return f"{text}; it has none"
    near = did_you_mean(name, known)
    return f"{text}{near} It has: {_listed(known)}" if near else f"{text}; it has: {_listed(known)}"


def _listed(names: Sequence[str]) -> str:
    """Return the names in one line, as many as fit."""
    shown: list[str] = []
    length = 0
    for name in names:
        length += len(name) + 2
        if shown and length > _LISTED_MAX:
            return f"{', '.join(shown)} and {len(names) - len(shown)} more"
        shown.append(name)
    return ", ".join(shown)
