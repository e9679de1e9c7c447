"""Values that handlers hand over, as JSON; what JSON cannot express is named by type and path."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import msgspec

from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.limits import DEPTH_MAX
from thingctl_protocol.messages import check_json

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIELDS: Final = ("__struct_fields__", "__dataclass_fields__")
_PLAIN: Final = {int, bool, float, type(None)}
_NO_KEY: Final = object()


class NotJsonError(TypeError):
    """A value that JSON cannot express. Its text is for instance ``float64 at $.v``."""


def encode(value: Any) -> bytes:
    """Encode a value; raises :class:`NotJsonError`.

    The result is one JSON value of bounded depth also when ``value`` holds ``msgspec.Raw``.
    """
    try:
        encoded = msgspec.json.encode(value)
    except Exception as error:
        raise NotJsonError(fault(value) or str(error)) from None
    if b"null" in encoded and (found := fault(value)):
        raise NotJsonError(found)  # msgspec writes null for nan and inf
    try:
        check_json(encoded)
    except ProtocolError as error:
        raise NotJsonError(f"{type(value).__name__} at $: {error}") from None
    return encoded


def fault(value: Any, path: str = "$") -> str:
    """The first part of ``value`` that JSON cannot express, as ``type at path``; ``""``: none found."""
    if path.count(".") + path.count("[") > DEPTH_MAX:
        return f"nested more than {DEPTH_MAX} deep at {path[:40]}…"
    if isinstance(value, dict):
        key = next((key for key in value if type(key) is not str and not _is_encodable({key: 0})), _NO_KEY)
        if key is not _NO_KEY:
            return f"{type(key).__name__} as a key at {path}"
    parts = list(_parts(value))
    for name, part in parts:
        if found := fault(part, path + name):
            return found
    if isinstance(value, float) and not isfinite(value):
        return f"{float(value)} at {path}"
    return "" if parts or _is_encodable(value) else f"{type(value).__name__} at {path}"


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a container holds, each with its step in the path."""
    if isinstance(value, dict):
        yield from ((f".{key}", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    else:
        names = next((getattr(type(value), name) for name in _FIELDS if hasattr(type(value), name)), ())
        yield from ((f".{name}", getattr(value, name, None)) for name in names)


def _is_encodable(value: Any) -> bool:
    if type(value) in _PLAIN:
        return True
    try:
        msgspec.json.encode(value)
    except Exception:
        return False
    return True
