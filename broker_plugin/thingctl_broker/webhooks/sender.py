"""Tells other systems how executions go: posts, signed, tried again, in order.

That an execution's end has yet to be told is a mark on the execution itself, kept with the
very record of its end. So nothing is forgotten by a restart; something may be told twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from thingctl_broker.commands.events import Change
from thingctl_broker.commands.execution_resource import encode_execution
from thingctl_broker.errors import NotAccepting
from thingctl_broker.security.outbound_urls import printable_target
from thingctl_broker.webhooks.client import AskedToWait, NotAllowed
from thingctl_broker.webhooks.queue import Key, PostQueue, delivery_id, sign, sign_standard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.operations import Operations
    from thingctl_broker.webhooks.client import PostClient

UNDER_WAY: Final = 16
"""Posts under way at once."""

LOOK_SECONDS: Final = 30.0
"""Between two looks for what is owed by somebody who has gone."""

_TOLD: Final = frozenset({Change.PROGRESSED, Change.ENDED, Change.LATE})
_LASTING: Final = frozenset({Change.ENDED, Change.LATE})
_GONE: Final = 410

_log = structlog.get_logger("thingctl.webhooks")


class _Failure(NamedTuple):
    """Why a post has not arrived. ``final``: trying again is in vain. ``wait``: seconds to wait first."""

    fault: str
    final: bool = False
    wait: float = 0.0


class Webhooks:
    """Sends posts about executions."""

    def __init__(
        self,
        operations: Operations,
        client: PostClient,
        secret: bytes,
        endpoints: Mapping[str, bytes] | None = None,
        outbox: PostQueue | None = None,
    ) -> None:
        """``secret``: for the post-backs of commands. ``endpoints``: URLs and the secret of each."""
        self._operations = operations
        self._client = client
        self._secret = secret
        self._endpoints = {} if endpoints is None else dict(endpoints)
        self._outbox = PostQueue() if outbox is None else outbox
        self._chance = random.SystemRandom().random
        self._posting: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None
        self._look_at = 0.0
        operations.events.subscribe(self._on_change, _TOLD)

    def __len__(self) -> int:
        return len(self._outbox)

    def start(self) -> None:
        """Begin to send, first what was owed before."""
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
        if change in _LASTING and not self._operations.owe(execution):
            self._look_at = 0.0
            self._woken.set()
            return
        self._note(execution, self._operations.monotonic())

    def _note(self, execution: Execution, now: float) -> None:
        for target in self._targets(execution):
            if not self._outbox.note(Key(target, execution.execution_id), now):
                self._operations.counters["webhooks.noRoom"] += 1
        self._woken.set()

    def _targets(self, execution: Execution) -> list[str]:
        uri = execution.post_back_uri
        return [*self._endpoints, *([uri] if uri and uri not in self._endpoints else [])]

    async def _drive(self) -> None:
        while True:
            self._woken.clear()
            now = self._operations.monotonic()
            if now >= self._look_at:
                self._look_at = now + LOOK_SECONDS
                await self._take_on()
            for key in self._outbox.take(now, UNDER_WAY - len(self._posting)):
                task = asyncio.get_running_loop().create_task(self._post(key))
                self._posting.add(task)
                task.add_done_callback(self._posted)
            due = self._outbox.next_at()
            if due is None or len(self._posting) >= UNDER_WAY:
                due = self._look_at
            wait = max(0.0, min(due, self._look_at) - now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._woken.wait()

    async def _take_on(self) -> None:
        """Note what is owed by somebody who has gone."""
        try:
            owed = await self._operations.owed()
        except NotAccepting as error:  # it is looked for again, here and below
            _log.warning("what is owed cannot be read yet", fault=error.text)
            return
        except Exception:
            _log.exception("what is owed cannot be read")
            return
        now = self._operations.monotonic()
        for execution in owed:
            if self._targets(execution):
                self._note(execution, now)
            else:  # its endpoint has been taken out of the settings
                await self._told(execution)

    def _posted(self, task: asyncio.Task[None]) -> None:
        self._posting.discard(task)
        self._woken.set()

    async def _post(self, key: Key) -> None:
        execution, failure = await self._attempt(key)
        now = self._operations.monotonic()
        if execution is not None and failure is None:
            self._operations.counters["webhooks.delivered"] += 1
            if self._outbox.delivered(key, now):
                await self._told(execution)
            return
        delay = self._outbox.failed(
            key,
            now,
            self._chance(),
            final=failure is None or failure.final,
            wait=failure.wait if failure else 0.0,
        )
        if failure is None:
            return
        self._operations.counters["webhooks.failed"] += 1
        about = {
            "target": printable_target(key.target),
            "execution_id": key.execution_id,
            "thing": "" if execution is None else execution.thing,
        }
        if delay is None:
            self._operations.counters["webhooks.givenUp"] += 1
            _log.warning("a post was given up", fault=failure.fault, **about)
            if execution is not None:
                await self._told(execution)
        else:
            _log.info("a post failed", fault=failure.fault, again_in=round(delay, 1), **about)

    async def _attempt(self, key: Key) -> tuple[Execution | None, _Failure | None]:
        """Send a post; return the execution (None: it is gone) and why the post has not arrived."""
        execution = None
        try:
            found = await self._operations.read_many([key.execution_id], partial(self._letter, key))
            if found is None:
                return None, None
            execution, body, headers = found
            status = await self._client.post(key.target, body, headers)
        except NotAllowed as error:
            return execution, _Failure(str(error), final=True)
        except AskedToWait as error:
            return execution, _Failure(str(error), wait=error.seconds)
        except Exception as error:  # whatever a network can do
            return execution, _Failure(f"{type(error).__name__}: {error}")
        if 200 <= status < 300:
            return execution, None
        # A redirection too: it could lead anywhere.
        return execution, _Failure(f"the answer was {status}", final=status == _GONE)

    def _letter(
        self, key: Key, there: Mapping[str, Execution]
    ) -> tuple[Execution, bytes, dict[str, str]] | None:
        """The execution, the body of a post about it and its headers; None: it is no longer there."""
        execution = there.get(key.execution_id)
        if execution is None:
            return None
        body = encode_execution(execution)
        timestamp = int(self._operations.unix())
        message_id = delivery_id(key.execution_id, body)
        secret = self._endpoints.get(key.target, self._secret)
        return (
            execution,
            body,
            {
                "Content-Type": "application/json",
                "User-Agent": "thingctl",
                "Thingctl-Timestamp": str(timestamp),
                "Thingctl-Signature": f"sha256={sign(secret, timestamp, body)}",
                "Webhook-Id": message_id,
                "Webhook-Timestamp": str(timestamp),
                "Webhook-Signature": sign_standard(secret, message_id, timestamp, body),
            },
        )

    async def _told(self, execution: Execution) -> None:
        """A target has heard of the execution, or never will."""
        execution_id = execution.execution_id
        if any(Key(target, execution_id) in self._outbox for target in self._targets(execution)):
            return
        try:
            await self._operations.settled(execution_id)
        except Exception:  # it is told once more, later
            _log.exception("that a post has arrived cannot be kept", executionId=execution_id)
