"""What makes a dialect: its paths, its endpoints, and its way of saying what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.routing import Route

    from thingctl_broker.http.problems import Problem
    from thingctl_broker.http.response import ApiResponse
    from thingctl_broker.security.tokens import Token


NO_DEVICE: Final = "no device has that id"
"""The fault for a thing that is not there, and for one that the caller may not see."""


class Dialect(Protocol):
    """Another system's API. The application routes to it, and lets it tell every fault on its paths."""

    async def admit(self, request: Request) -> Token | None:
        """Return whose the request is; None when the endpoint finds that out. Raises :class:`Problem`."""
        ...

    def owns(self, path: str) -> bool:
        """Whether the path is one of this dialect's, or would be."""
        ...

    def canonical(self, path: str) -> str:
        """The path as its endpoints have it, where clients write it otherwise."""
        ...

    def routes(self) -> list[Route]:
        """The endpoints with their paths."""
        ...

    def tell(self, problem: Problem) -> ApiResponse:
        """The fault in the dialect's own words."""
        ...


def printed(value: Any) -> bytes:
    """JSON, laid out as the other system's documentation prints it: two spaces, a field on each line."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
