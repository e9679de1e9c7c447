"""The HTTP API, as an operator's program uses it."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any, NamedTuple

from support.processes import TOKEN
from support.waits import soon


class Answer(NamedTuple):
    """What the API said."""

    status: int
    body: dict[str, Any]


class Operator:
    """One connection, kept alive."""

    def __init__(
        self, address: tuple[str, int], tls: ssl.SSLContext | None = None, token: str = TOKEN
    ) -> None:
        self._address = address
        self._tls = tls
        self._token = token
        self._connection: http.client.HTTPConnection
        if tls is None:
            self._connection = http.client.HTTPConnection(*address, timeout=20)
        else:
            self._connection = http.client.HTTPSConnection(*address, timeout=20, context=tls)

    def close(self) -> None:
        self._connection.close()

    def another(self, token: str) -> Operator:
        """A connection to the same broker with another token."""
        return Operator(self._address, self._tls, token)

    def call(self, method: str, path: str, body: object = None, **extra: str) -> Answer:
        """``extra``: headers besides."""
        headers = {"Authorization": f"Bearer {self._token}"} | extra
        encoded = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            encoded = json.dumps(body)
        self._connection.request(method, path, encoded, headers)
        response = self._connection.getresponse()
        return Answer(response.status, json.loads(response.read() or b"{}"))

    def send(self, thing: str, action: str, params: object = None, ttl: int = 60) -> str:
        """Send a command; return the id of its execution."""
        answer = self.call(
            "POST",
            "/api/v1/commands",
            {"thingId": thing, "action": action, "params": params or {}, "ttl": ttl},
        )
        assert answer.status == 201, answer
        return answer.body["executionId"]

    def get(self, execution_id: str) -> dict[str, Any]:
        answer = self.call("GET", f"/api/v1/commands/{execution_id}")
        assert answer.status == 200, answer
        return answer.body

    def until(self, execution_id: str, status: str, seconds: float = 10.0) -> dict[str, Any]:
        """Wait until an execution has a status; return it."""
        soon(lambda: self.get(execution_id)["status"] == status, seconds)
        return self.get(execution_id)
