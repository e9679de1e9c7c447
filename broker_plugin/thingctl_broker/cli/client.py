"""A client of the HTTP API on the standard library alone: it starts ten times faster than httpx."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlencode, urlsplit

from thingctl_broker.cli import exact_json
from thingctl_broker.cli.diagnosis import explain, lost
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_protocol.identifiers import is_id

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

Filters = Mapping[str, str | list[str]]
"""Query parameters; a list repeats one."""

TIMEOUT: Final = 10.0
"""Seconds for the broker to answer, beyond what it was asked to wait."""

PAGE: Final = 500
"""Items of one page, at the most."""


_PROBLEM: Final = "urn:thingctl:problem:"

_NEXT_STEPS: Final = {
    "unknown-thing": "thingctl things list",
    "unknown-thing-type": "thingctl thing-types list",
    "unknown-token": "thingctl tokens list",
    "unknown-client": "thingctl clients list",
    "unknown-execution": "thingctl list",
}
"""The command that lists what there is, by the problem that something is not there."""


class ProxyFailure(Failure):
    """A proxy before the broker answered in the broker's place."""


class NoSuchExecution(Failure):
    """The broker knows no execution with that id."""


class ApiClient:
    """One connection to one broker; a context manager. Each method raises :class:`Failure`."""

    def __init__(
        self, url: str, token: str, ca: str = "", *, token_source: str = "", timeout: float | None = None
    ) -> None:
        """``url``: ``http://host[:port]`` or ``https://…``, with a path if a proxy adds one.

        ``ca``: a file with the authority to trust; empty: the system's. ``token_source``: the option,
        variable or file of the token. ``timeout``: seconds for an answer; None: ``TIMEOUT``.
        """
        self.url = url
        self._token_source = token_source
        self._timeout = timeout
        self._has_answered = False
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
            raise Failure(Exit.USAGE, f"{url!r} is not a URL like http://127.0.0.1:8080")
        self._base = f"{parts.path.rstrip('/')}/api/v1"
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        # http.client sets TCP_NODELAY itself.
        self._connection: HTTPConnection
        if parts.scheme == "https":
            self._connection = HTTPSConnection(host, port, timeout=TIMEOUT, context=_context(ca))
        else:
            self._connection = HTTPConnection(host, port, timeout=TIMEOUT)

    def check_reachable(self) -> None:
        """Connect and disconnect; raises :class:`Failure` if nothing listens at the URL."""
        address = (self._connection.host, self._connection.port)
        try:
            socket.create_connection(address, self._timeout or TIMEOUT).close()
        except OSError as error:
            raise Failure(Exit.UNREACHABLE, explain(self.url, error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    # What the API offers.

    def send(self, thing: str, action: str, params: str, ttl: int | None, key: str = "") -> Json:
        """Send a command; ``params`` is an encoded JSON object. Returns the execution.

        ``key``: with that of an earlier command, its execution is returned and nothing is sent.
        """
        fields = [f'"thingId":{_string(thing)}', f'"action":{_string(action)}', f'"params":{params}']
        if ttl is not None:
            fields.append(f'"ttl":{ttl}')
        body = "{" + ",".join(fields) + "}"
        return self._execution("POST", "/commands", body=body, headers=_key_header(key))

    def send_to_many(self, body: str, key: str = "") -> Json:
        """Send a command to many things; ``body``: as the API takes it, encoded. Returns the group."""
        return self.request_json("POST", "/commands", body=body, headers=_key_header(key))

    def execution(self, execution_id: str, wait: float | None = None) -> Json:
        """One execution; with ``wait`` (seconds), when it has ended or the time is over."""
        query = {} if wait is None else {"wait": f"{wait:g}"}
        return self._execution("GET", _path(execution_id), query, wait=wait or 0.0)

    def group(self, command_id: str) -> Json:
        """One command with its executions by status; it may be for one thing."""
        return self.request_json("GET", f"/groups/{quote(command_id, safe='')}")

    def cancel(self, execution_id: str) -> Json:
        """Withdraw an execution, or have its thing asked to stop. Returns it."""
        return self._execution("POST", _path(execution_id) + "/cancel")

    def get_thing(self, name: str) -> Json:
        """One thing."""
        return self.request_json("GET", f"/things/{quote(name, safe='')}")

    def items(
        self, path: str, key: str, filters: Filters | None = None, limit: int | None = None
    ) -> Iterator[Json]:
        """What is in a collection of the API, in its order; at most ``limit``.

        ``key``: the field of a page that has the items.
        """
        cursor = None
        while limit is None or limit > 0:
            query = {**(filters or {}), "limit": str(PAGE if limit is None else min(PAGE, limit))}
            if cursor is not None:
                query["cursor"] = cursor
            page = self.request_json("GET", path, query)
            items = page.get(key)
            if not isinstance(items, list):
                raise self._no_broker()
            yield from items
            if limit is not None:
                limit -= len(items)
            cursor = page.get("nextCursor")
            if cursor is None:
                return

    # How it asks.

    def _execution(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: str | None = None,
        wait: float = 0.0,
        *,
        headers: dict[str, str] | None = None,
    ) -> Json:
        execution = self.request_json(method, path, query, body, wait, headers=headers)
        if not isinstance(execution.get("executionId"), str) or not isinstance(execution.get("status"), str):
            raise self._no_broker()
        return execution

    def request_json(
        self,
        method: str,
        path: str,
        query: Filters | None = None,
        body: str | None = None,
        wait: float = 0.0,
        *,
        headers: dict[str, str] | None = None,
    ) -> Json:
        """Ask once; return the JSON object that comes back with a 2xx.

        ``wait``: seconds that the broker was asked to wait.
        """
        target = self._base + path + (f"?{urlencode(query, doseq=True)}" if query else "")
        headers = self._headers | (headers or {})
        if body is not None:
            headers["Content-Type"] = "application/json"
        status, content = self._ask(method, target, body, headers, (self._timeout or TIMEOUT) + wait)
        if status == 204:
            return {}
        answer = _object(content)
        if status in {502, 503, 504} and not _is_problem(answer):
            raise self._proxy(status, method)
        if answer is None:
            raise self._no_broker()
        if not 200 <= status < 300:
            raise self._refusal(status, answer)
        return answer

    def _ask(
        self, method: str, target: str, body: str | None, headers: dict[str, str], timeout: float
    ) -> tuple[int, bytes]:
        """Return the status and the content of the answer; raises :class:`Failure` without an answer."""
        try:
            found = self._exchange(method, target, body, headers, timeout)
        except TimeoutError:
            raise Failure(
                Exit.UNREACHABLE, f"the broker at {self.url} did not answer within {timeout:g} s"
            ) from None
        except (OSError, HTTPException) as error:
            text = lost(self.url, error) if self._has_answered else explain(self.url, error)
            raise Failure(Exit.UNREACHABLE, text) from None
        self._has_answered = True
        return found

    def _exchange(
        self, method: str, target: str, body: str | None, headers: dict[str, str], timeout: float
    ) -> tuple[int, bytes]:
        connection = self._connection
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        try:
            # A server that refuses a long body answers while we still send: its words count.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, body and body.encode(), headers)
            response = connection.getresponse()
            return response.status, response.read()
        except BaseException:
            connection.close()
            raise

    def _no_broker(self) -> Failure:
        return Failure(Exit.UNREACHABLE, f"what answers at {self.url} is not a thingctl broker")

    def _proxy(self, status: int, method: str) -> ProxyFailure:
        text = f"a proxy at {self.url} answered {status}: the broker behind it did not answer in time"
        if method != "GET":
            text += "; whether the broker has done what was asked is not known"
        return ProxyFailure(Exit.UNREACHABLE, text)

    def _refusal(self, status: int, problem: Json) -> Failure:
        """Say in a sentence what the broker's problem details say, and what to do next."""
        detail = problem.get("detail") or problem.get("title") or f"the broker answered {status}"
        place = problem.get("pointer") or problem.get("parameter")
        text = f"{detail} (at {place})" if place else str(detail)
        if status in {401, 403}:
            return Failure(Exit.UNAUTHORIZED, text + self._token_note(status))
        kind = str(problem.get("type")).removeprefix(_PROBLEM)
        step = _NEXT_STEPS.get(kind)
        failure = NoSuchExecution if kind == "unknown-execution" else Failure
        return failure(Exit.REFUSED, f"{text}; to see what there is: {step}" if step else text)

    def _token_note(self, status: int) -> str:
        note = f"; the token comes from {self._token_source}" if self._token_source else ""
        if status == 401:
            note += "; the broker's administrator makes one: thingctl tokens add NAME SCOPE"
        return note


def _context(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except OSError as error:
        raise Failure(Exit.USAGE, f"THINGCTL_CA {ca} cannot be used: {error.strerror or error}") from None


def _path(execution_id: str) -> str:
    if not is_id(execution_id):
        raise Failure(Exit.USAGE, f"{execution_id!r} is no execution id")
    return f"/commands/{execution_id}"


def _key_header(key: str) -> dict[str, str]:
    if not key.isascii() or not key.isprintable():  # the broker has its say on the rest
        raise Failure(Exit.USAGE, "an idempotency key consists of visible ASCII characters")
    return {"Idempotency-Key": key} if key else {}


def _object(content: bytes) -> Json | None:
    try:
        value = exact_json.decode(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_problem(answer: Json | None) -> bool:
    return answer is not None and str(answer.get("type")).startswith(_PROBLEM)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
