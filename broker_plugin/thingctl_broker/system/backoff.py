"""How long to wait before the next attempt: the wait doubles with each failure, up to a longest one. Pure."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_EXPONENT_MAX = 64


class ExponentialBackoff(NamedTuple):
    """``first`` and ``longest``: seconds."""

    first: float
    longest: float

    def ceiling(self, failures: int) -> float:
        """The longest wait after so many failures in a row, 1 or more.

        >>> [ExponentialBackoff(0.5, 10.0).ceiling(failures) for failures in (1, 2, 3, 1000)]
        [0.5, 1.0, 2.0, 10.0]
        """
        return min(self.longest, self.first * 2.0 ** min(failures - 1, _EXPONENT_MAX))

    def delay(self, failures: int, draw: Callable[[float, float], float] = random.uniform) -> float:
        """A wait between half of the ceiling and the ceiling: attempts of many clients spread over time.

        ``draw(low, high)`` chooses it.
        """
        ceiling = self.ceiling(failures)
        return draw(ceiling / 2, ceiling)
