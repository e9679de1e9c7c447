"""Request bodies: read within bounds, decoded, and faults located."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from starlette.requests import ClientDisconnect

from thingctl_broker.http.problems import BODY_TOO_LARGE, INVALID_BODY, UNSUPPORTED_MEDIA_TYPE, Problem
from thingctl_broker.http.whole_numbers import decode_whole
from thingctl_broker.security.outbound_urls import check_uri
from thingctl_protocol.json_pointer import escape, pointer_of, split_fault
from thingctl_protocol.limits import PAYLOAD_MAX

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from starlette.types import Receive

BODY_MAX: Final = PAYLOAD_MAX + 4096
"""Bytes: whatever fits a request to a device, and the fields around it."""

DRAIN_MAX: Final = 1024 * 1024
"""Bytes of an oversized body that are read and thrown away, so that a client that sends
everything before it reads still hears why it was refused. Beyond that, the connection closes."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""What editors of some systems put before UTF-8; RFC 8259 section 8.1 lets it be ignored."""

_CLOSE: Final = ((b"connection", b"close"),)
_JSON_WORDS: Final = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_WORD: Final = re.compile("|".join(rf"\b{word}\b" for word in _JSON_WORDS))
_S = TypeVar("_S", bound=msgspec.Struct)


async def read_json_body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    """Read a body that is to be JSON.

    Raises :class:`Problem` (413, 415), and ClientDisconnect when the client goes away.
    """
    media_type = headers.get(b"content-type")
    if media_type is not None and media_type != b"application/json":
        _check_media_type(media_type)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Problem(UNSUPPORTED_MEDIA_TYPE, "send the body without a Content-Encoding")
    declared = headers.get(b"content-length")
    if declared is not None and int(declared) > BODY_MAX + DRAIN_MAX:  # the parser has seen to digits
        raise _too_large(_CLOSE)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message["body"]
        if len(body) > BODY_MAX:
            raise _too_large()
        return body.removeprefix(_BYTE_ORDER_MARK)
    return await _read_rest(message, receive)


async def _read_rest(message: Any, receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        size += len(message["body"])
        if size > BODY_MAX + DRAIN_MAX:
            raise _too_large(_CLOSE)
        if size <= BODY_MAX:
            parts.append(message["body"])
        else:
            parts.clear()
        if not message.get("more_body", False):
            break
        message = await receive()
    if size > BODY_MAX:
        raise _too_large()
    return b"".join(parts).removeprefix(_BYTE_ORDER_MARK)


def decode_body(decoder: msgspec.json.Decoder[_S], body: bytes) -> _S:
    """Decode ``body``; raises :class:`Problem` (400) with a pointer to the fault.

    The decoder's struct forbids unknown fields.
    """
    try:
        try:
            decoded = decode_whole(decoder, body)
        except msgspec.ValidationError as error:
            # To find the place the rest is read too, and that may not even be JSON.
            raise _located(str(error), body, decoder.type) from None
        _check_once(body, decoder.type)
        return decoded  # noqa: TRY300 what the check finds is no matter of the decoder's
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(INVALID_BODY, f"the body is not JSON in UTF-8: {error}", pointer="") from None
    except RecursionError:
        raise Problem(INVALID_BODY, "the body is nested too deeply", pointer="") from None


@lru_cache(64)
def _quoted_names(struct: type[msgspec.Struct]) -> tuple[bytes, ...]:
    return tuple(f'"{name}"'.encode() for name in struct.__struct_encode_fields__)


def _check_once(body: bytes, struct: type[msgspec.Struct]) -> None:
    """Raise :class:`Problem` when a field of the body is given twice: which one counts is anybody's guess.

    Names that occur once in the bytes need no second look; an escape may hide one.
    """
    if b"\\u" not in body:
        for name in _quoted_names(struct):
            if body.count(name) > 1:
                break
        else:
            return
    seen: set[str] = set()
    for field, _ in json.loads(body, object_pairs_hook=list):  # the innermost come first, this is the whole
        if field in seen:
            raise Problem(INVALID_BODY, f"{ascii(field)[:80]} is given twice", pointer=f"/{escape(field)}")
        seen.add(field)


def _located(text: str, body: bytes, struct: Any) -> Problem:
    """Say where the fault lies; the fields themselves are asked only now that one is at fault."""
    sentence, path = split_fault(text)
    pointer = pointer_of(path)
    fields = _fields(body)
    if pointer == "" and fields is not None:
        known = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        unknown = _first(fields, known)
        if unknown is not None:
            return Problem(
                INVALID_BODY,
                f"there is no field {ascii(unknown)[:80]}; the fields are {', '.join(known)}",
                pointer=f"/{escape(unknown)}",
            )
        missing = _first([name for name, field in known.items() if field.required], fields)
        if missing is not None:
            return Problem(INVALID_BODY, f"the field {missing!r} is missing", pointer=f"/{missing}")
    words = _WORD.sub(lambda word: _JSON_WORDS[word[0]], sentence)
    return Problem(INVALID_BODY, words[:1].lower() + words[1:], pointer=pointer)


def _fields(body: bytes) -> Collection[str] | None:
    """The names of the fields of ``body``; None when it is no object."""
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return None


def _first(names: Collection[str], without: Collection[str]) -> str | None:
    return next((name for name in names if name not in without), None)


def checked_post_back(uri: str | None, pointer: str = "/postBackUri") -> str:
    """Return where to post back to, empty for nowhere; raises :class:`Problem` (400)."""
    if uri is None:
        return ""
    try:
        return check_uri(uri)
    except ValueError as error:
        raise Problem(INVALID_BODY, str(error), pointer=pointer) from None


def _check_media_type(media_type: bytes) -> None:
    essence = media_type.partition(b";")[0].strip().lower()
    if essence != b"application/json" and not (
        essence.startswith(b"application/") and essence.endswith(b"+json")
    ):
        raise Problem(UNSUPPORTED_MEDIA_TYPE, "send the body with Content-Type: application/json")


def _too_large(headers: tuple[tuple[bytes, bytes], ...] = ()) -> Problem:
    return Problem(BODY_TOO_LARGE, f"the body is longer than {BODY_MAX} bytes", headers=headers)
