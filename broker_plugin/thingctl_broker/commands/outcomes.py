"""Outcomes: the executions of a command put together by status, reason and equal result.

Pure. Devices choose reasons and results, so both are bounded here: a command to ten thousand things
whose results all differ has one outcome, not ten thousand.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from heapq import nsmallest
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from thingctl_protocol.statuses import Status  # noqa: TC001 msgspec reads it

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from thingctl_broker.commands.execution import Execution

EXAMPLES_MAX: Final = 3
"""Things that are named of one outcome."""

REASONS_MAX: Final = 10
"""Reasons of one status that are distinguished: the most frequent ones."""

RESULTS_MAX: Final = 5
"""Results of one status and reason that are distinguished. More are all counted together."""

RESULT_BYTES: Final = 200
"""A longer result is not shown, and not distinguished from others."""


class OutcomeCount(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How many executions have the same status, reason and result.

    ``examples``: the first of their things, by name, each once; ``more``: there are others.
    ``result``: left out of those without one, and where results are not distinguished.
    """

    status: Status
    count: int
    examples: list[str]
    reason_code: str = ""
    result: msgspec.Raw | None = None
    more: bool = False


class Tally(NamedTuple):
    """Some executions that are equal in all but their things. ``result``: encoded JSON."""

    status: Status
    reason_code: str
    result: bytes | None
    number: int
    """How many there are."""
    things: Sequence[str]
    """At least the first ``EXAMPLES_MAX`` different ones and one more, by name."""


def tally(execution: Execution) -> Tally:
    """Return one execution as a tally."""
    reason = execution.reason
    code = "" if reason is None else reason.reason_code
    return Tally(execution.status, code, execution.result, 1, (execution.thing,))


def combine(tallies: Iterable[Tally]) -> list[OutcomeCount]:
    """Put equal executions together, the most frequent outcome first."""
    by_status: defaultdict[Status, list[Tally]] = defaultdict(list)
    for one in tallies:
        by_status[one.status].append(one)
    found: list[OutcomeCount] = []
    for status, of_status in by_status.items():
        for reason, of_reason in _by_reason(of_status).items():
            for result, equal in _by_result(of_reason).items():
                names = nsmallest(EXAMPLES_MAX + 1, {thing for one in equal for thing in one.things})
                raw = None if result is None else msgspec.Raw(result)
                number, more = sum(one.number for one in equal), len(names) > EXAMPLES_MAX
                found.append(OutcomeCount(status, number, names[:EXAMPLES_MAX], reason, raw, more))
    return sorted(found, key=lambda one: (-one.count, one.status, one.reason_code, bytes(one.result or b"")))


def count_statuses(outcomes: Iterable[OutcomeCount]) -> Counter[Status]:
    """Return how many executions stand where."""
    counts: Counter[Status] = Counter()
    for one in outcomes:
        counts[one.status] += one.count
    return counts


def _by_reason(tallies: list[Tally]) -> Mapping[str, list[Tally]]:
    """Group by reason code. The rare ones beyond ``REASONS_MAX`` count as having none."""
    counts: Counter[str] = Counter()
    for one in tallies:
        counts[one.reason_code] += one.number
    frequent = sorted(counts, key=lambda code: (-counts[code], code))
    told_apart = set(frequent if len(frequent) <= REASONS_MAX else frequent[: REASONS_MAX - 1])
    groups: defaultdict[str, list[Tally]] = defaultdict(list)
    for one in tallies:
        groups[one.reason_code if one.reason_code in told_apart else ""].append(one)
    return groups


def _by_result(tallies: list[Tally]) -> Mapping[bytes | None, list[Tally]]:
    """Group by result, unless there are more than ``RESULTS_MAX`` or one is too long to show."""
    groups: defaultdict[bytes | None, list[Tally]] = defaultdict(list)
    for one in tallies:
        is_shown = one.result is not None and len(one.result) <= RESULT_BYTES
        groups[one.result if is_shown else None].append(one)
    return groups if len(groups) <= RESULTS_MAX else {None: tallies}
