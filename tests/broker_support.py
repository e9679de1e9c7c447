"""What several tests of the broker's cores need."""

from thingctl_broker.commands.execution import Execution
from thingctl_protocol.identifiers import IdSource
from thingctl_protocol.messages import Response, decode_response, encode_response

IDS = IdSource()
NOW, AT = 1000.0, 1_748_390_400.0


def make_execution(**fields):
    """An execution of 30 seconds, just created; ids are in the order of the calls."""
    ttl = fields.get("ttl", 30)
    defaults = {
        "execution_id": IDS.make(0, 0),
        "command_id": "command",
        "thing": "thermostat-001",
        "action": "setTemperature",
        "params": b'{"value":24}',
        "ttl": ttl,
        "created_at": AT,
        "deadline": NOW + ttl,
    }
    return Execution(**(defaults | fields))


def say(status, **fields) -> Response:
    """A response as it comes off the wire."""
    return decode_response(encode_response(status, **fields))


class HeldJournal:
    """A journal whose commits the test makes: ``then`` waits for ``commit``."""

    def __init__(self):
        self.accepting = True
        self.recorded = []
        self.forgotten = []
        self._waiting = []
        self._uncommitted = 0

    def record(self, execution):
        self.recorded.append((execution.execution_id, execution.status, execution.delivery))
        self._uncommitted += 1

    def forget(self, execution_id):
        self.forgotten.append(execution_id)

    def then(self, kept, lost=None):
        if self._uncommitted or self._waiting:
            self._waiting.append((kept, lost))
        else:
            kept()

    def commit(self):
        """Keep everything, and tell those who wait for it, in their order."""
        self._uncommitted = 0
        self.accepting = True
        waiting, self._waiting = self._waiting, []
        for kept, _ in waiting:
            kept()

    def fail(self):
        """Keep nothing, and tell those who can give up."""
        self.accepting = False
        waiting, self._waiting = self._waiting, []
        self._waiting = [entry for entry in waiting if entry[1] is None]
        for _, lost in waiting:
            if lost is not None:
                lost()
