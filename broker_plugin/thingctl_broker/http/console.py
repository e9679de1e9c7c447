"""The web console: the files of ``thingctl_broker/console``, served at ``/``.

All of them are read once and served from memory, so no path of a request ever reaches
the file system. The page itself is asked for again each time; what it loads has the
build's digest in its path and may be kept for ever.
"""

from __future__ import annotations

from functools import cache
from gzip import compress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from thingctl_broker.commands.status_table import for_console
from thingctl_broker.http.problems import METHOD_NOT_ALLOWED, NOT_FOUND, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope, Send

PAGE: Final = "/"
ASSETS: Final = "/console/"

FOLDER: Final = Path(__file__).parent.parent / "console"

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing from elsewhere, nothing inline; and text cannot become markup, not even by mistake."""

_TYPES: Final = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}
_HEADERS: Final = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"vary", b"Accept-Encoding"),
)
_BUILD: Final = b"{{build}}"
_STATUSES: Final = "statuses.js"
_ROWS: Final = b"export const ROWS = []; /* {{statuses}} */"
"""What stands in ``statuses.js`` where the table of statuses goes."""


class File(NamedTuple):
    """A file as it goes out, plain and compressed."""

    media_type: bytes
    etag: bytes
    cache_control: bytes
    body: bytes
    zipped: bytes


class Console:
    """Answers whatever is asked of the console. It needs no token: nothing in it is secret."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = load(folder)

    @staticmethod
    def owns(path: str) -> bool:
        """Whether a path is the console's."""
        return path == PAGE or path.startswith(ASSETS)

    def answer(self, scope: Scope) -> ConsoleFile:
        """Return what is at the path; raises :class:`Problem` (404, 405)."""
        file = self._files.get(scope["path"])
        if file is None:
            raise Problem(NOT_FOUND, "no part of the console has this path")
        if scope["method"] not in {"GET", "HEAD"}:
            raise Problem(
                METHOD_NOT_ALLOWED, "the console is only to be read", headers=((b"allow", b"GET, HEAD"),)
            )
        headers = dict(scope["headers"])
        return ConsoleFile(
            file,
            known=headers.get(b"if-none-match") == file.etag,
            zipped=b"gzip" in headers.get(b"accept-encoding", b""),
        )


class ConsoleFile:
    """One answer with a file in it, or with the word that the client has it."""

    def __init__(self, file: File, *, known: bool, zipped: bool) -> None:
        self._file = file
        self._known = known
        self._zipped = zipped

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        file = self._file
        headers = [(b"cache-control", file.cache_control), (b"etag", file.etag), *_HEADERS]
        if self._known:
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        body = file.zipped if self._zipped else file.body
        headers += [(b"content-type", file.media_type), (b"content-length", b"%d" % len(body))]
        if self._zipped:
            headers.append((b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@cache
def load(folder: Path) -> Mapping[str, File]:
    """Read the console's files; return them by the path they are served at."""
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in _TYPES}
    if _STATUSES in contents:
        rows = b"export const ROWS = %b;" % msgspec.json.encode(for_console())
        contents[_STATUSES] = contents[_STATUSES].replace(_ROWS, rows)
    digest = sha256()
    for name, content in contents.items():
        digest.update(b"%b %d\n" % (name.encode(), len(content)))
        digest.update(content)
    build = digest.hexdigest()[:16]
    files: dict[str, File] = {}
    for name, content in contents.items():
        if name == "index.html":
            files[PAGE] = _file(name, content.replace(_BUILD, build.encode()), b"no-cache")
        else:
            path = f"{ASSETS}{build}/{name}"
            files[path] = _file(name, content, b"public, max-age=31536000, immutable")
    return files


def _file(name: str, body: bytes, cache_control: bytes) -> File:
    etag = b'"%b"' % sha256(body).hexdigest()[:16].encode()
    return File(_TYPES[Path(name).suffix], etag, cache_control, body, compress(body, mtime=0))
