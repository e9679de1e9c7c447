"""The HTTP API as one ASGI application.

Every request goes the same way: who calls, which endpoint, and one place that turns
whatever went wrong into problem details.
"""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Final, cast

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route, Router

from thingctl_broker.commands.operations import SendsAtOnce
from thingctl_broker.http.api.actions import Actions
from thingctl_broker.http.api.commands import COMMANDS, Commands
from thingctl_broker.http.api.enrolment import Enrolments
from thingctl_broker.http.api.events import Streams
from thingctl_broker.http.api.fast_path import PostFastPath
from thingctl_broker.http.api.groups import Groups
from thingctl_broker.http.api.health import HEALTH, READY, Probes
from thingctl_broker.http.api.mqtt_authentication import Authentications
from thingctl_broker.http.api.mqtt_clients import Clients
from thingctl_broker.http.api.overview import OverviewPage
from thingctl_broker.http.api.sign_in import SIGN_IN, SignIn
from thingctl_broker.http.api.thing_types import ThingTypes
from thingctl_broker.http.api.things import Things
from thingctl_broker.http.api.tokens import Tokens
from thingctl_broker.http.auth import Callers, needs, scope_of
from thingctl_broker.http.console import Console
from thingctl_broker.http.dialects.graph import Graph
from thingctl_broker.http.dialects.navixy import Navixy
from thingctl_broker.http.endpoint_specs import OPENAPI
from thingctl_broker.http.openapi import describe
from thingctl_broker.http.problems import INTERNAL_ERROR, METHOD_NOT_ALLOWED, Problem, problem_of
from thingctl_broker.http.query import Parameters
from thingctl_broker.http.response import ApiResponse
from thingctl_broker.security.audit_events import note_nothing
from thingctl_protocol.limits import TTL_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from thingctl_broker.commands.operations import Operations
    from thingctl_broker.http.dialects.dialect import Dialect
    from thingctl_broker.rollouts.driver import RolloutDriver
    from thingctl_broker.security.audit_events import Note
    from thingctl_broker.security.rate_limit import Rate
    from thingctl_broker.security.token_store import TokenStore
    from thingctl_broker.things.mqtt_clients import MqttClients
    from thingctl_broker.things.service import ThingService

OPEN_PATHS: Final = frozenset({HEALTH, READY, OPENAPI, SIGN_IN})
"""With the console's own files, all that needs no token; also what is not there needs one."""


def create_app(
    operations: Operations,
    rollouts: RolloutDriver,
    tokens: TokenStore,
    directory: ThingService,
    note: Note = note_nothing,
    *,
    connections: Callable[[], int] | None = None,
    clients: MqttClients | None = None,
    rate: Rate | None = None,
    public_url: str = "",
    ttl_max: int = TTL_MAX,
) -> Api:
    """Make the API over ``operations``. It runs in the loop that they live in.

    ``note`` writes down what is done to tokens. ``connections``: how many MQTT connections
    are open, for ``/metrics``. ``clients``: those of the MQTT server; None: it is another
    broker's. ``rate``: how often each token may call; None: as often as it likes.
    ``public_url``: where the API is for its clients; empty: where they say. ``ttl_max``:
    seconds, the longest TTL of a command.
    """
    callers = Callers(tokens, rate, operations.counters)
    groups = Groups(operations, rollouts)
    probes = Probes(operations, connections, clients)
    streams = Streams(operations)
    tokens.listen(streams.wake)
    routes = [
        *groups.routes(),
        *Actions(directory.registry).routes(),
        *Things(directory).routes(),
        *ThingTypes(directory).routes(),
        *Tokens(tokens, note).routes(),
        *SignIn(tokens, callers, note).routes(),
        *Authentications(directory).routes(),
        *Clients(clients, note).routes(),
        *Enrolments(directory).routes(),
        *OverviewPage(operations).routes(),
        *streams.routes(),
        *probes.routes(),
    ]
    return Api(
        Commands(operations, groups),
        routes,
        tokens,
        operations,
        callers=callers,
        streams=streams,
        probes=probes,
        dialects=(Navixy(operations, callers), Graph(operations, callers, public_url)),
        ttl_max=ttl_max,
    )


class Api:
    """The API. Call it with ASGI; ``stop`` ends what waits."""

    def __init__(
        self,
        commands: Commands,
        routes: list[Route],
        tokens: TokenStore,
        operations: Operations,
        *,
        callers: Callers,
        streams: Streams,
        probes: Probes,
        dialects: Sequence[Dialect] = (),
        ttl_max: int = TTL_MAX,
    ) -> None:
        """``routes``: every endpoint but those of commands, each marked with the scope it needs."""
        self._commands = commands
        self._console = Console()
        self._streams = streams
        self._probes = probes
        self.dialects = dialects
        self._tokens = tokens
        self._ttl_max = ttl_max
        self._callers = callers
        self._operations = operations
        self.shortcut = (
            PostFastPath(operations, callers, self._refusal) if isinstance(operations, SendsAtOnce) else None
        )
        """Where the server may first take what comes, if there is such a way."""
        self._stopping = False
        self._log = structlog.get_logger("thingctl.http")
        self.routes = [
            *commands.routes(),
            *routes,
            Route(OPENAPI, self._describe, methods=["GET"]),
        ]
        """Every endpoint but those of the dialects."""
        self._router = Router(
            [*self.routes, *(route for dialect in dialects for route in dialect.routes())],
            redirect_slashes=False,
        )
        for route in self.routes:
            if route.path not in OPEN_PATHS:
                scope_of(route.endpoint)  # raises for one that does not say

    @cached_property
    def description(self) -> bytes:
        """What ``GET /openapi.json`` answers."""
        return describe(cast("list[Route]", self._router.routes), self._ttl_max)

    @needs(None)
    async def _describe(self, request: Request) -> ApiResponse:
        """``GET /openapi.json``: this API, described for programs (OpenAPI 3.1)."""
        Parameters(request.scope["query_string"], frozenset())
        return ApiResponse(200, self.description)

    def stop(self) -> None:
        """Let waiting and listening callers go; from now on nobody waits."""
        self._stopping = True
        self._operations.stop()
        self._streams.stop()
        self._probes.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":  # pragma: no cover - the server asks for nothing else
            raise NotImplementedError(f"this application speaks HTTP, not {scope['type']}")
        scope["app"] = self  # with it, the router raises what it cannot route
        try:
            path = scope["path"]
            for_all = self._for_all(scope)
            if for_all is not None:
                await for_all(scope, receive, send)
                return
            dialect = self._dialect(path)
            if dialect is not None:
                scope["path"] = dialect.canonical(path)
                scope["token"] = await dialect.admit(Request(scope, receive))
            elif path not in OPEN_PATHS:
                scope["token"] = await self._callers.admit_known(scope)
            if path == COMMANDS and scope["method"] == "POST":
                # Straight to the busiest endpoint: the router costs as much as all the rest.
                answer = await self._commands.send(scope, receive)
            else:
                scope["tokens"] = self._tokens
                await self._router(scope, receive, send)
                return
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            return  # the connection is closed already: there is nobody to tell, and nothing to log
        except Exception as error:
            answer = self._told(scope, self._problem(scope, error))
        await answer(scope, receive, send)

    def _for_all(self, scope: Scope) -> ASGIApp | None:
        """What answers a request that needs no token and no router; None: it needs both."""
        path = scope["path"]
        if path == "*" and scope["method"] == "OPTIONS":  # about the server as a whole: RFC 9110, 9.3.7
            return ApiResponse(204, b"")
        return self._console.answer(scope) if self._console.owns(path) else None

    def _dialect(self, path: str) -> Dialect | None:
        """Whose path it is; None: this broker's own API."""
        return next((dialect for dialect in self.dialects if dialect.owns(path)), None)

    def _told(self, scope: Scope, problem: Problem) -> ApiResponse:
        dialect = self._dialect(scope["path"])
        return problem.answer() if dialect is None else dialect.tell(problem)

    def _refusal(self, error: Exception) -> ApiResponse:
        return self._problem({"method": "POST", "path": COMMANDS}, error).answer()

    def _problem(self, scope: Scope, error: Exception) -> Problem:
        problem = problem_of(error)
        if problem is not None:
            return problem
        if isinstance(error, HTTPException) and error.status_code == METHOD_NOT_ALLOWED.status:
            allowed = ", ".join(self._methods(scope["path"]))
            return Problem(
                METHOD_NOT_ALLOWED,
                f"{scope['method']} is not for this path; {allowed} are",
                headers=((b"allow", allowed.encode()),),
            )
        self._log.error("request failed", method=scope["method"], path=scope["path"], exc_info=error)
        return Problem(INTERNAL_ERROR, "the broker failed at this request; its log says more")

    def _methods(self, path: str) -> list[str]:
        methods: set[str] = set()
        for route in cast("list[Route]", self._router.routes):
            if route.path_regex.match(path):
                methods |= route.methods or set()
        return sorted(methods)
