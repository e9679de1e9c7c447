"""Bounds that both sides agree on. A message beyond one of them is refused, never cut.

Where a figure follows a peer, the peer is named: a device written for it fits.
"""

from __future__ import annotations

from typing import Final

TTL_MIN: Final = 1
"""Seconds. A command that may not last a second is a message, not a command."""

TTL_MAX: Final = 7 * 24 * 3600
"""Seconds: a week."""

TTL_DEFAULT: Final = 60
"""Seconds, when the operator does not say."""

THING_MAX: Final = 128
"""Characters of a thing's name."""

ACTION_MAX: Final = 128
"""Characters of an action's name."""

ID_MAX: Final = 128
"""Characters of an execution or command id that the agent accepts (ours have 36)."""

PAYLOAD_MAX: Final = 128 * 1024
"""Bytes of a request's or a response's payload (Azure direct methods: 128 KiB)."""

ANNOUNCEMENT_MAX: Final = 256 * 1024
"""Bytes of what a thing announces about its actions."""

REASON_CODE_MAX: Final = 64
"""Characters of ``statusReason.reasonCode`` (AWS: 64)."""

REASON_DESCRIPTION_MAX: Final = 1024
"""Characters of ``statusReason.reasonDescription`` (AWS: 1,024)."""

PROGRESS_MESSAGE_MAX: Final = 1024
"""Characters of ``progress.message``."""

DEPTH_MAX: Final = 64
"""Nested arrays and objects in one payload."""
