"""What can be wrong with a message or a name, and the one exception that says so."""

from __future__ import annotations


class ProtocolError(ValueError):
    """Something on the wire, or meant for it, breaks the protocol.

    ``text`` is one sentence for people. ``pointer`` is an RFC 6901 JSON pointer
    to the fault inside the message (``""``: the message as a whole).
    """

    def __init__(self, text: str, pointer: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.pointer = pointer


class TransitionError(ProtocolError):
    """A status that the execution cannot move to from where it stands."""
