"""Tells other systems how executions go: posts, signed, tried again, in order.

That an execution's end has yet to be told is a mark on the execution itself, kept with the
very record of its end. So nothing is forgotten by a restart; something may be told twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Final

import structlog

from thingctl_broker.events import Change
from thingctl_broker.http.keeping import until_kept
from thingctl_broker.http.schemas import encode_execution
from thingctl_broker.http.webhook_client import NotAllowed
from thingctl_broker.webhooks import Key, Outbox, sign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingctl_broker.executions import Execution
    from thingctl_broker.http.webhook_client import Client
    from thingctl_broker.service import CommandService

UNDER_WAY: Final = 16
"""Posts under way at once."""

_TOLD: Final = frozenset({Change.PROGRESSED, Change.ENDED, Change.LATE})
_LASTING: Final = frozenset({Change.ENDED, Change.LATE})
_GONE: Final = 410

_log = structlog.get_logger("thingctl.webhooks")


class Webhooks:
    """Sends posts about the executions of one service."""

    def __init__(
        self,
        service: CommandService,
        client: Client,
        secret: bytes,
        endpoints: Mapping[str, bytes] | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        """``secret``: for the post-backs of commands. ``endpoints``: URLs and the secret of each."""
        self._service = service
        self._client = client
        self._secret = secret
        self._endpoints = {} if endpoints is None else dict(endpoints)
        self._outbox = Outbox() if outbox is None else outbox
        self._chance = random.SystemRandom().random
        self._posting: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None
        service.events.subscribe(self._on_change, _TOLD)

    def __len__(self) -> int:
        return len(self._outbox)

    def start(self) -> None:
        """Begin to send, first what a restart has kept back."""
        now = self._service.monotonic()
        for execution in self._service.table:
            if execution.untold:
                self._note(execution, now)
        self._driver = asyncio.get_running_loop().create_task(self._drive(), name="webhooks")

    async def stop(self) -> None:
        """Stop sending. What has not been told is told after the next start."""
        tasks = [*self._posting, *([] if self._driver is None else [self._driver])]
        self._driver = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_change(self, execution: Execution, change: Change) -> None:
        if not (execution.post_back_uri or self._endpoints):
            return
        if change in _LASTING and not execution.untold:
            execution.untold = True
            self._service.journal.record(execution)
        self._note(execution, self._service.monotonic())

    def _note(self, execution: Execution, now: float) -> None:
        for target in self._targets(execution):
            if not self._outbox.note(Key(target, execution.execution_id), now):
                self._service.counters["webhooks.noRoom"] += 1
        self._woken.set()

    def _targets(self, execution: Execution) -> list[str]:
        uri = execution.post_back_uri
        return [*self._endpoints, *([uri] if uri and uri not in self._endpoints else [])]

    async def _drive(self) -> None:
        while True:
            self._woken.clear()
            now = self._service.monotonic()
            for key in self._outbox.take(now, UNDER_WAY - len(self._posting)):
                task = asyncio.get_running_loop().create_task(self._post(key))
                self._posting.add(task)
                task.add_done_callback(self._posted)
            due = self._outbox.next_at()
            wait = None if due is None or len(self._posting) >= UNDER_WAY else max(0.0, due - now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._woken.wait()

    def _posted(self, task: asyncio.Task[None]) -> None:
        self._posting.discard(task)
        self._woken.set()

    async def _post(self, key: Key) -> None:
        execution = self._service.table.get(key.execution_id)
        fault, final = "", execution is None
        if execution is not None:
            await until_kept(self._service.journal)
            try:
                status = await self._client.post(key.target, *self._letter(key.target, execution))
                if not 200 <= status < 300:  # a redirection too: nobody is followed anywhere
                    fault, final = f"the answer was {status}", status == _GONE
            except NotAllowed as error:
                fault, final = str(error), True
            except Exception as error:  # whatever a network can do
                fault = f"{type(error).__name__}: {error}"
        now = self._service.monotonic()
        if execution is not None and not fault:
            self._service.counters["webhooks.delivered"] += 1
            if self._outbox.delivered(key, now):
                self._told(execution)
            return
        delay = self._outbox.failed(key, now, self._chance(), final=final)
        if execution is None:
            return
        self._service.counters["webhooks.failed"] += 1
        ids = {"execution_id": execution.execution_id, "thing": execution.thing}
        if delay is None:
            self._service.counters["webhooks.givenUp"] += 1
            _log.warning("a post was given up", target=key.target, fault=fault, **ids)
            self._told(execution)
        else:
            _log.info("a post failed", target=key.target, fault=fault, again_in=round(delay, 1), **ids)

    def _letter(self, target: str, execution: Execution) -> tuple[bytes, dict[str, str]]:
        """The body of a post and its headers."""
        body = encode_execution(execution)
        timestamp = int(self._service.unix())
        secret = self._endpoints.get(target, self._secret)
        return body, {
            "Content-Type": "application/json",
            "User-Agent": "thingctl",
            "Thingctl-Timestamp": str(timestamp),
            "Thingctl-Signature": f"sha256={sign(secret, timestamp, body)}",
        }

    def _told(self, execution: Execution) -> None:
        """A target has heard of the execution, or never will."""
        left = any(Key(target, execution.execution_id) in self._outbox for target in self._targets(execution))
        if execution.untold and not left:
            execution.untold = False
            if self._service.table.get(execution.execution_id) is execution:
                self._service.journal.record(execution)
