"""The words and the wire format that broker and agent agree on.

Everything here is pure: no clock, no socket, no logger. A malformed message
or name raises :class:`~thingctl_protocol.errors.ProtocolError` and nothing else.
"""

__version__ = "0.1.0"
