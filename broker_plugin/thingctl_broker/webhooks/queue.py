"""Posts to other systems: which is due when, how one is signed, and where one may go.

Pure: the caller brings the time (monotonic seconds) and the randomness. A post tells how an
execution stands when it is sent, so of what happens meanwhile only the last is told, in
order, and there is never more than one post for each execution and target.
"""

from __future__ import annotations

import base64
import heapq
import hmac
from hashlib import sha256
from typing import Final, NamedTuple

from thingctl_broker.system.backoff import ExponentialBackoff

POSTS_MAX: Final = 100_000
"""Posts that wait."""

ATTEMPTS_MAX: Final = 16
"""Tries before a post is given up: some hours."""

BACKOFF: Final = ExponentialBackoff(first=2.0, longest=3600.0)
"""Before the next try, by chance up to the whole of it (full jitter)."""

PER_TARGET: Final = 4
"""Posts under way to one target."""

WAIT_MAX: Final = 24 * 3600.0
"""Seconds that a target may ask for before the next try (Retry-After)."""

_SOON: Final = 0.05
_ENCODED: Final = b"whsec_"


class Key(NamedTuple):
    """A post: which target is told of which execution."""

    target: str
    execution_id: str


class _Post:
    __slots__ = ("attempts", "changed", "under_way")

    def __init__(self) -> None:
        self.attempts = 0
        self.changed = False
        self.under_way = False


class PostQueue:
    """The posts that wait or are under way, at most ``capacity`` of them."""

    def __init__(self, capacity: int = POSTS_MAX) -> None:
        self.capacity = capacity
        self._posts: dict[Key, _Post] = {}
        self._due: list[tuple[float, int, Key]] = []
        self._under_way: dict[str, int] = {}
        self._paused: dict[str, float] = {}
        """Until when a target has asked to be left alone."""
        self._count = 0

    def __len__(self) -> int:
        return len(self._posts)

    def __contains__(self, key: Key) -> bool:
        return key in self._posts

    def note(self, key: Key, now: float) -> bool:
        """There is something to tell; False: there is no room for it."""
        post = self._posts.get(key)
        if post is not None:
            post.changed = post.under_way  # else it has not been looked at yet
            return True
        if len(self._posts) >= self.capacity:
            return False
        self._posts[key] = _Post()
        self._push(now, key)
        return True

    def take(self, now: float, limit: int) -> list[Key]:
        """The posts to send now, oldest first. They are then under way."""
        taken: list[Key] = []
        later: list[tuple[float, Key]] = []
        self._paused = {target: until for target, until in self._paused.items() if until > now}
        while len(taken) < limit and self._due and self._due[0][0] <= now:
            _, _, key = heapq.heappop(self._due)
            paused = self._paused.get(key.target)
            if paused is not None or self._under_way.get(key.target, 0) >= PER_TARGET:
                later.append((paused or now + _SOON, key))
                continue
            self._under_way[key.target] = self._under_way.get(key.target, 0) + 1
            self._posts[key].under_way = True
            taken.append(key)
        for at, key in later:
            self._push(at, key)
        return taken

    def next_at(self) -> float | None:
        """When something may be due; None: nothing waits."""
        return self._due[0][0] if self._due else None

    def delivered(self, key: Key, now: float) -> bool:
        """A post has arrived; False: there is more to tell by now."""
        post = self._back(key)
        if not post.changed:
            del self._posts[key]
            return True
        post.changed = False
        post.attempts = 0
        self._push(now, key)
        return False

    def failed(
        self, key: Key, now: float, chance: float, *, final: bool = False, wait: float = 0.0
    ) -> float | None:
        """A post has not arrived; return in how many seconds it is tried again, None: never.

        ``chance``: from 0 to 1. ``final``: trying again is in vain. ``wait``: seconds for which
        the target wants no post at all, at most ``WAIT_MAX`` of them.
        """
        post = self._back(key)
        post.changed = False  # the next try tells the latest anyway
        post.attempts += 1
        if final or post.attempts >= ATTEMPTS_MAX:
            del self._posts[key]
            return None
        wait = min(wait, WAIT_MAX)
        if wait:
            self._paused[key.target] = max(now + wait, self._paused.get(key.target, 0.0))
        delay = wait + chance * BACKOFF.ceiling(post.attempts)
        self._push(now + delay, key)
        return delay

    def _back(self, key: Key) -> _Post:
        post = self._posts[key]
        post.under_way = False
        left = self._under_way[key.target] - 1
        if left:
            self._under_way[key.target] = left
        else:
            del self._under_way[key.target]
        return post

    def _push(self, at: float, key: Key) -> None:
        self._count += 1
        heapq.heappush(self._due, (at, self._count, key))


def sign(secret: bytes, timestamp: int, body: bytes) -> str:
    """The signature of a post: HMAC-SHA256 over ``{timestamp}.{body}``, in hexadecimal.

    >>> sign(b"secret", 1748390400, b"{}")[:16]
    '1d7bae1ddb89fb66'
    """
    return hmac.new(secret, b"%d.%b" % (timestamp, body), sha256).hexdigest()


def delivery_id(execution_id: str, body: bytes) -> str:
    """What a post and its repeats have in common, and no other post: the execution and what is told of it.

    >>> delivery_id("01a", b"{}")
    '01a-44136fa355b3678a'
    """
    return f"{execution_id}-{sha256(body).hexdigest()[:16]}"


def sign_standard(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The signature that the Standard Webhooks specification describes: ``v1,`` and base64.

    A secret that begins with ``whsec_`` is base64 behind that; any other counts as it is.
    Raises ValueError for one that is no base64.

    >>> sign_standard(b"secret", "01a", 1748390400, b"{}")[:12]
    'v1,bbo0qgBEz'
    """
    key = (
        base64.b64decode(secret.removeprefix(_ENCODED), validate=True)
        if secret.startswith(_ENCODED)
        else secret
    )
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return f"v1,{base64.b64encode(hmac.digest(key, signed, sha256)).decode()}"
