"""Integers as JSON Schema has them: ``60.0`` and ``6e1`` are the number 60.

The decoder takes only digits for an integer. What it refuses for that reason is decoded again with digits
in that place; all else stays as it stands, byte for byte.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from thingctl_protocol.json_pointer import split_fault

_T = TypeVar("_T")

NUMBERS_MAX: Final = 8
"""Numbers of one payload that are written anew."""

_LENGTH_MAX: Final = 64
_EXACT: Final = 2**53


def decode_whole(decoder: msgspec.json.Decoder[_T], payload: bytes) -> _T:
    """Decode a payload in which integers may have a fraction of zero or an exponent.

    Raises what the decoder raises.
    """
    for _ in range(NUMBERS_MAX):
        try:
            return decoder.decode(payload)
        except msgspec.ValidationError as error:
            written = _written(payload, str(error))
            if written is None:
                raise
            payload = written
    return decoder.decode(payload)


def _written(payload: bytes, fault: str) -> bytes | None:
    """Return the payload with digits for the number at fault; None: the fault is another."""
    expected, path = split_fault(fault)
    if "`int" not in expected or not expected.endswith("got `float`") or "[" in path:
        return None
    return _replaced(payload, path.split(".")[1:])


def _replaced(encoded: bytes, names: list[str]) -> bytes | None:
    if not names:
        return _digits(encoded)
    fields = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    inner = _replaced(bytes(fields[names[0]]), names[1:]) if names[0] in fields else None
    if inner is None:
        return None
    fields[names[0]] = msgspec.Raw(inner)
    return msgspec.json.encode(fields)


def _digits(number: bytes) -> bytes | None:
    """Return a number's digits; None: it is no integer, or none that a double holds exactly.

    >>> _digits(b"6e1"), _digits(b"60.5")
    (b'60', None)
    """
    value = float(number) if len(number) <= _LENGTH_MAX else 0.5
    return b"%d" % int(value) if value.is_integer() and abs(value) < _EXACT else None
