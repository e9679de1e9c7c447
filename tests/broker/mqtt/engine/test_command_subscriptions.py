"""What a client has of the command namespace."""

from __future__ import annotations

import pytest

from thingctl_broker.mqtt.engine.command_subscriptions import CommandSubscriptions
from thingctl_protocol.topics import Kind, Topics

OWN = "$emqx/commands/things/lamp"


def granted(mine: CommandSubscriptions, topic_filter: str, qos: int = 1) -> int | None:
    code = mine.grant(topic_filter, qos, topics=Topics(), thing="lamp")
    mine.sum_up()
    return code


@pytest.mark.parametrize(
    ("topic_filter", "kinds"),
    [
        (f"{OWN}/executions/+/request", {Kind.REQUEST}),
        (f"{OWN}/executions/+/+", {Kind.REQUEST, Kind.CANCEL}),
        (f"{OWN}/#", {Kind.REQUEST, Kind.CANCEL, Kind.TIME}),
        (f"{OWN}/time", {Kind.TIME}),
    ],
)
def test_a_filter_covers_what_the_broker_sends_by_it(topic_filter, kinds):
    mine = CommandSubscriptions()
    assert granted(mine, topic_filter, 2) == 1
    assert mine.qos == dict.fromkeys(kinds, 1)
    assert topic_filter in mine


@pytest.mark.parametrize(
    "topic_filter",
    [f"{OWN}/executions/+/response", f"{OWN}/actions", f"{OWN}/executions/0193/request", f"{OWN}/other", OWN,
     "$emqx/commands/things/+/#", "$emqx/commands/things/lamp2/#", "$emqx/commands/#"],
)  # fmt: skip
def test_a_filter_that_covers_nothing_of_its_own_is_not_granted(topic_filter):
    mine = CommandSubscriptions()
    assert granted(mine, topic_filter) is None
    assert (len(mine), mine.qos) == (0, {})


def test_of_several_filters_the_highest_qos_counts_and_what_is_removed_counts_no_more():
    mine = CommandSubscriptions()
    granted(mine, f"{OWN}/executions/+/request", 1)
    granted(mine, f"{OWN}/#", 0)
    assert mine.qos == {Kind.REQUEST: 1, Kind.CANCEL: 0, Kind.TIME: 0}
    assert mine.remove(f"{OWN}/executions/+/request")
    assert not mine.remove(f"{OWN}/executions/+/request")
    mine.sum_up()
    assert mine.qos == {Kind.REQUEST: 0, Kind.CANCEL: 0, Kind.TIME: 0}
    granted(mine, f"{OWN}/#", 1)
    assert (len(mine), mine.qos[Kind.REQUEST]) == (1, 1)
