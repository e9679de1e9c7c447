"""Where in a JSON document a value stands, as a JSON pointer (RFC 6901)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def escape(name: object) -> str:
    """A key or an index as one part of a pointer (RFC 6901 section 3).

    >>> escape("a/b~c")
    'a~1b~0c'
    """
    return str(name).replace("~", "~0").replace("/", "~1")


def unescape(part: str) -> str:
    """The key that a part of a pointer names (RFC 6901 section 4)."""
    return part.replace("~1", "/").replace("~0", "~")


def to_pointer(path: Iterable[object]) -> str:
    """Keys and indexes, outermost first, as a pointer.

    >>> to_pointer(["params", 0, "a/b"])
    '/params/0/a~1b'
    """
    return "".join(f"/{escape(part)}" for part in path)


def split_fault(message: str) -> tuple[str, str]:
    """Split what msgspec says of a fault into its text and the path at which it is; no path: the whole.

    >>> split_fault("Expected `int`, got `str` - at `$.params[0].x`")
    ('Expected `int`, got `str`', '.params[0].x')
    """
    text, _, path = message.partition(" - at `$")
    return text, path.rstrip("`")


def pointer_of(path: str) -> str:
    """Turn msgspec's path ``.a.b[0]`` into the pointer ``/a/b/0``.

    >>> pointer_of(".params[0].x")
    '/params/0/x'

    msgspec does not name the keys of a mapping; the pointer then is to the mapping.

    >>> pointer_of(".params.limits[...].low")
    '/params/limits'
    """
    return path.partition("[...]")[0].replace("[", ".").replace("]", "").replace(".", "/")
