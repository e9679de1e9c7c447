"""Types of fields that tell an API description which values the checks take.

Decoding takes any value of the plain type: the check behind it answers with a sentence of its own.
The bounds and patterns come from the modules that check.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from thingctl_broker.security.outbound_urls import URI_MAX
from thingctl_broker.security.passwords import PASSWORD_MAX, PASSWORD_MIN
from thingctl_protocol.identifiers import ACTION_PATTERN, UUID7_PATTERN
from thingctl_protocol.limits import TTL_MAX, TTL_MIN


def described(**schema: Any) -> msgspec.Meta:
    """Return the mark that adds these keywords of JSON Schema to a field's description."""
    return msgspec.Meta(extra_json_schema=schema)


def whole(pattern: str) -> str:
    """Return a regular expression with anchors: JSON Schema looks for a match anywhere.

    >>> whole("[a-z]+")
    '^[a-z]+$'
    """
    return f"^{pattern}$"


FREE_OBJECT: Final[dict[str, Any]] = {"type": "object", "additionalProperties": True}
"""The schema of an object with any fields. Generators take an object without the second keyword for empty."""

ActionName = Annotated[str, described(pattern=whole(ACTION_PATTERN))]
Uuid7 = Annotated[str, described(pattern=whole(UUID7_PATTERN))]
Time = Annotated[str, described(format="date-time")]
"""RFC 3339."""

Ttl = Annotated[int, described(minimum=TTL_MIN, maximum=TTL_MAX)]
Params = Annotated[msgspec.Raw, described(anyOf=[FREE_OBJECT, {"type": "null"}])]
"""An encoded JSON object. Null is taken for an empty one."""

JsonObject = Annotated[msgspec.Raw, described(**FREE_OBJECT)]
URI_PATTERN: Final = r"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[1-9][0-9]{0,4})?([/?][!-\"$-~]*)?$"
PostBackUri = Annotated[str, described(format="uri", pattern=URI_PATTERN, maxLength=URI_MAX)]
Password = Annotated[str, described(minLength=PASSWORD_MIN, maxLength=PASSWORD_MAX)]
