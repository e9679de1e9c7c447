"""Links in answers: references that hold under whatever path a proxy serves the API.

A proxy may add a prefix and change scheme and host, so a link names neither: it leads from the
request's own path to another (RFC 3986, section 4.2).
"""

from __future__ import annotations


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
    folders, parts = base.split("/")[:-1], target.split("/")
    shared = 0
    for folder, part in zip(folders, parts[:-1], strict=False):
        if folder != part:
            break
        shared += 1
    up = "../" * (len(folders) - shared)
    down = "/".join(parts[shared:])
    # A colon in the first part would make it a scheme.
    return up + down if up or ":" not in parts[shared] else f"./{down}"
