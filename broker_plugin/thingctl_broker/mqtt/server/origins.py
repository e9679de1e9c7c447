"""Which web pages may connect over WebSocket. A browser names the page's origin (RFC 6454). Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

ANY: Final = "*"
"""Admits every page."""

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s@]+", re.IGNORECASE)
_OWN_PORTS: Final = {"http": ":80", "https": ":443"}


class AllowedOrigins:
    """Admits pages of the broker's own hosts, and of the origins that the settings name."""

    def __init__(self, hosts: Iterable[str], named: Iterable[str] = ()) -> None:
        """``hosts``: ``host:port`` of the broker's own pages. ``named``: other origins; ``*``: all."""
        self._hosts = frozenset(hosts)
        self._named = frozenset(map(_normal, named))

    def admits(self, origins: Iterable[str]) -> bool:
        """Whether a request with these ``Origin`` headers may connect; one without any comes from no page."""
        return ANY in self._named or all(map(self._admits_one, origins))

    def _admits_one(self, origin: str) -> bool:
        try:
            return urlsplit(origin).netloc in self._hosts or _normal(origin) in self._named
        except ValueError:  # no URL at all
            return False


def is_origin(text: str) -> bool:
    """Whether ``text`` can name an origin.

    >>> is_origin("https://app.example"), is_origin("https://app.example/path"), is_origin("*")
    (True, False, True)
    """
    return text == ANY or _ORIGIN.fullmatch(text) is not None


def _normal(origin: str) -> str:
    """An origin as browsers write it: in lower case, without the scheme's own port."""
    origin = origin.lower()
    return origin.removesuffix(_OWN_PORTS.get(origin.partition(":")[0], ""))
