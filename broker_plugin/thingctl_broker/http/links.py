"""Links in answers: references that hold under whatever path a proxy serves the API.

A proxy may add a prefix and change scheme and host, so a link names none of them: it leads from the
request's own path to another (RFC 3986, section 4.2). Where a dialect wants a whole URL, the settings
or a trusted proxy say what it begins with.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.requests import Request

    from thingctl_broker.http.forwarding import Forwarded

FORWARDED: Final = "thingctl.forwarded"
"""Where the scope of a request from a trusted proxy has its :class:`~forwarding.Forwarded`."""


def location(base: bytes, target: str) -> tuple[bytes, bytes]:
    """The ``Location`` header that leads from the path ``base`` of the request to the path ``target``."""
    return b"location", reference(base.decode("latin-1"), target).encode("latin-1")


def reference(base: str, target: str) -> str:
    """The relative reference from one absolute path to another.

    >>> reference("/api/v1/commands", "/api/v1/commands/7")
    'commands/7'
    >>> reference("/api/v1/things/", "/api/v1/tokens/7")
    '../tokens/7'
    """
    folder, _, name = target.rpartition("/")
    way = _way(base, folder)
    # A colon in the first part would make it a scheme.
    return way + name if way or ":" not in name else f"./{name}"


@lru_cache(64)
def _way(base: str, folder: str) -> str:
    """The relative reference from a path to a folder, with a slash at its end; empty to its own folder."""
    folders, parts = base.split("/")[:-1], folder.split("/")
    shared = 0
    for one, other in zip(folders, parts, strict=False):
        if one != other:
            break
        shared += 1
    up = "../" * (len(folders) - shared)
    down = "".join(f"{part}/" for part in parts[shared:])
    return up + down if up or ":" not in down.partition("/")[0] else f"./{down}"


def absolute(request: Request, public_url: str) -> str:
    """The URL of a request as its client wrote it, without the query.

    ``public_url``: where the API is; empty: where a trusted proxy says, or else the request's ``Host``.
    """
    path = request.url.path
    if public_url:
        return public_url.rstrip("/") + path
    told: Forwarded | None = request.scope.get(FORWARDED)
    if told is None:
        return str(request.url.replace(query=""))
    scheme, host = told.scheme or request.url.scheme, told.host or request.url.netloc
    return f"{scheme}://{host}{told.prefix}{path}"
