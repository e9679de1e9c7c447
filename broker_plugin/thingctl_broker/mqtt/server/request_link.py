"""The service's way to things: requests and cancels to a thing's connection, and its PUBACKs back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.protocol.reason_codes import Reason, words
from thingctl_broker.mqtt.server.serving import ServingConnections
from thingctl_protocol.messages import StatusReason

if TYPE_CHECKING:
    from thingctl_broker.commands.service import CommandService
    from thingctl_broker.mqtt.protocol.packets import Acknowledgement

REFUSED_BY_DEVICE: Final = "REFUSED_BY_DEVICE"
"""The reason code of an execution whose request the device has refused with its PUBACK."""

_REASON_CHARACTERS: Final = 1024


class RequestLink:
    """What the MQTT server is to the service."""

    def __init__(self) -> None:
        self.service: CommandService
        self._serving = ServingConnections()

    def publish_request(self, thing: str, execution_id: str, payload: bytes, *, again: bool) -> bool:
        """Write a request to the connection that serves the thing."""
        connection = self._serving.get(thing)
        if (
            connection is None
        ):  # pragma: no cover - the service hears of it before the connection is forgotten
            return True
        return connection.publish_request(execution_id, payload, again=again)

    def publish_cancel(self, thing: str, execution_id: str) -> None:
        """Ask the thing to stop, if it has subscribed to cancels."""
        connection = self._serving.get(thing)
        if connection is not None:
            connection.publish_cancel(execution_id)

    def acknowledged(self, thing: str, execution_id: str, answer: Acknowledgement) -> None:
        """A thing has answered a request with a PUBACK."""
        if answer.reason >= Reason.UNSPECIFIED_ERROR:
            self._refused(thing, execution_id, answer)
            return
        self.service.acknowledged(thing, execution_id)

    def _refused(self, thing: str, execution_id: str, answer: Acknowledgement) -> None:
        """The device will not take the request, so nothing of it is going to happen."""
        text = f"the device refused the request: {words(answer.reason)}"
        if answer.reason_string:
            text = f"{text}: {answer.reason_string}"
        self.service.refused(thing, execution_id, StatusReason(REFUSED_BY_DEVICE, text[:_REASON_CHARACTERS]))

    def seconds_left(self, execution_id: str) -> int | None:
        """Seconds until an execution times out, at least 1; None: it has ended."""
        execution = self.service.table.get(execution_id)
        if execution is None or execution.is_terminal:
            return None
        return max(1, math.ceil(execution.deadline - self.service.monotonic()))
