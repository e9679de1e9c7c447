"""Topic strings both ways, and filters against a plain statement of MQTT's rules."""

import re
import string

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.identifiers import is_id, is_thing_name
from thingctl_protocol.topics import (
    DEVICE_KINDS,
    EXECUTION_KINDS,
    Kind,
    Topic,
    Topics,
    is_filter,
    is_topic,
    matches,
)

NAMES = st.text(string.ascii_letters + string.digits + ":_.-", min_size=1, max_size=128)
ROOTS = st.sampled_from(["$emqx/commands", "commands", "a/b/c", "$x", "things", "things/t/executions"])
LEVELS = st.sampled_from(
    ["", "+", "#", "$emqx", "commands", "things", "t", "executions", "e", "request", "x"]
)
FILTERS = st.lists(LEVELS, min_size=1, max_size=8).map("/".join).filter(is_filter)
TOPICS = st.lists(LEVELS.filter(lambda level: level not in {"+", "#"}), min_size=1, max_size=8)


def build(topics, topic):
    """The topic string of a ``Topic``, by the method named for its kind."""
    method = getattr(topics, topic.kind.value)
    return method(topic.thing) if topic.execution_id is None else method(topic.thing, topic.execution_id)


@st.composite
def command_topics(draw):
    kind = draw(st.sampled_from(Kind))
    return Topic(draw(NAMES), kind, draw(NAMES) if kind in EXECUTION_KINDS else None)


def reference_match(topic_filter, topic):
    """MQTT 3.1.1 section 4.7 as one regular expression."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    pattern = "/".join("[^/]*" if level == "+" else re.escape(level) for level in topic_filter.split("/"))
    if pattern == r"\#":
        pattern = ".*"
    elif pattern.endswith(r"/\#"):
        pattern = pattern.removesuffix(r"/\#") + "(/.*)?"
    return re.fullmatch(pattern, topic, re.DOTALL) is not None


@given(ROOTS, command_topics())
def test_what_is_built_is_taken_apart_again(root, topic):
    topics = Topics(root)
    text = build(topics, topic)
    assert topics.parse(text) == topic
    assert topics.owns(text)
    assert is_topic(text)


@given(ROOTS, command_topics(), st.data())
def test_a_mutated_topic_is_none_of_ours_or_names_what_it_says(root, topic, data):
    topics = Topics(root)
    text = build(topics, topic)
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 3))
    text = text[:at] + data.draw(st.text("/+#$\0aé.", max_size=3)) + text[at + cut :]
    parsed = topics.parse(text)
    if parsed is not None:
        assert build(topics, parsed) == text
        assert is_thing_name(parsed.thing)
        assert parsed.execution_id is None or is_id(parsed.execution_id)


@given(st.text(max_size=60) | TOPICS.map("/".join))
def test_any_text_is_taken_apart_or_not_ours(text):
    parsed = Topics().parse(text)
    assert parsed is None or build(Topics(), parsed) == text


@pytest.mark.parametrize(
    "text",
    [
        "$emqx/commands",
        "$emqx/commands/things/t",
        "$emqx/commands/things/t/executions/e",
        "$emqx/commands/things/t/executions/e/Request",
        "$emqx/commands/things/t/executions/e/request/",
        "$emqx/commands/things//executions/e/request",
        "$emqx/commands/things/t/executions//request",
        "$emqx/commands/things/+/executions/e/request",
        "$emqx/commands/things/t/executions/e/actions",
        "$emqx/commands/things/t/request",
        "$emqx/commands/things/" + "t" * 129 + "/actions",
        "/$emqx/commands/things/t/actions",
        "$emqx/commandsx/things/t/actions",
    ],
)
def test_near_misses_are_none_of_ours(text):
    assert Topics().parse(text) is None


@pytest.mark.parametrize(
    ("text", "owned"),
    [
        ("$emqx/commands", True),
        ("$emqx/commands/", True),
        ("$emqx/commands/#", True),
        ("$emqx/commands/things/t/executions/e/request", True),
        ("$emqx/commandsx", False),
        ("$emqx/command", False),
        ("x$emqx/commands", False),
        ("", False),
    ],
)
def test_the_namespace_is_owned_whole_and_no_further(text, owned):
    assert Topics().owns(text) is owned


@pytest.mark.parametrize("root", ["", "/", "/a", "a/", "a//b", "a/+", "#", "a\0", "a\nb", "\ud800"])
def test_a_root_that_cannot_stand_in_a_topic_is_refused(root):
    with pytest.raises(ProtocolError, match="topic root"):
        Topics(root)


@given(FILTERS, TOPICS)
@example("sport/#", ["sport"])
@example("#", ["$SYS"])
@example("+/x", ["$SYS", "x"])
@example("$SYS/#", ["$SYS", "x"])
@example("+", ["", ""])
@example("/+", ["", ""])
@pytest.mark.conforms("MQTT-3.3.2-3", "MQTT-4.7.1-2", "MQTT-4.7.1-3", "MQTT-4.7.2-1", "MQTT5-4.7.2-1")
def test_a_filter_matches_what_mqtt_says(topic_filter, topic):
    # [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.2-1]
    assert matches(topic_filter.split("/"), topic) is reference_match(topic_filter, "/".join(topic))


@given(st.sampled_from(["$emqx/commands", "commands"]), FILTERS)
@example("$emqx/commands", "$emqx/commands/things/t/executions/+/request")
@example("$emqx/commands", "$emqx/commands/things/t/executions/*/request")
@example("$emqx/commands", "$emqx/commands/things/t/executions/e/request")
@example("$emqx/commands", "$emqx/commands/things/+/executions/#")
@example("$emqx/commands", "$emqx/commands/things/t/executions/+/+")
@example("$emqx/commands", "$emqx/commands/things/t/+")
@example("$emqx/commands", "$emqx/+/#")
@example("$emqx/commands", "#")
@example("commands", "#")
@example("commands", "+/things/t/time")
def test_a_filter_covers_the_kinds_whose_every_topic_it_matches(root, topic_filter):
    topics = Topics(root)
    expected = set()
    for kind in Kind:
        # Two ids that no filter here names: what matches both matches every one.
        ids = ["0193-a", "0193-b"] if kind in EXECUTION_KINDS else [None]
        if all(reference_match(topic_filter, build(topics, Topic("t", kind, i))) for i in ids):
            expected.add(kind)
    assert topics.kinds(topic_filter, "t") == expected


@pytest.mark.parametrize("topic_filter", ["", "$emqx/#/x", "$emqx/commands/things/t/executions/+x/request"])
def test_a_malformed_filter_covers_nothing(topic_filter):
    assert topics_of(topic_filter) == frozenset()


def topics_of(topic_filter):
    return Topics().kinds(topic_filter, "t")


@given(NAMES)
def test_the_filters_of_a_thing_cover_exactly_their_kind(thing):
    topics = Topics()
    assert topics.kinds(topics.request_filter(thing), thing) == {Kind.REQUEST}
    assert topics.kinds(topics.cancel_filter(thing), thing) == {Kind.CANCEL}
    assert topics.kinds(topics.actions(thing), thing) == {Kind.ACTIONS}
    assert topics.kinds(topics.time(thing), thing) == {Kind.TIME}
    assert topics.kinds(topics.presence(thing), thing) == {Kind.PRESENCE}


@given(NAMES, NAMES)
def test_the_filters_of_one_thing_cover_nothing_of_another(thing, other):
    assume(thing != other)
    topics = Topics()
    assert topics.kinds(topics.request_filter(thing), other) == frozenset()


@pytest.mark.parametrize("kind", Kind)
def test_the_filter_for_every_thing_covers_exactly_its_kind(kind):
    assert Topics().kinds(Topics().every(kind), "any-thing") == {kind}


@pytest.mark.parametrize("kind", Kind)
def test_a_shared_filter_is_the_filter_for_every_thing_behind_its_group(kind):
    topics = Topics("fleet")
    assert topics.shared("workers", kind) == f"$share/workers/{topics.every(kind)}"
    assert topics.parse(topics.shared("workers", kind)) is None


def test_a_device_publishes_responses_its_actions_its_presence_and_nothing_else():
    assert {Kind.RESPONSE, Kind.ACTIONS, Kind.PRESENCE} == DEVICE_KINDS


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("#", True),
        ("+", True),
        ("a/+/b", True),
        ("a/#", True),
        ("/", True),
        ("", False),
        ("a#", False),
        ("a/#/b", False),
        ("a+", False),
        ("+a/b", False),
        ("a\0", False),
    ],
)
@pytest.mark.conforms(
    "MQTT-4.7.1-2",
    "MQTT-4.7.1-3",
    "MQTT-4.7.3-1",
    "MQTT-4.7.3-2",
    "MQTT5-4.7.1-1",
    "MQTT5-4.7.1-2",
    "MQTT5-4.7.3-1",
    "MQTT5-4.7.3-2",
)
def test_a_filter_is_well_formed_by_mqtts_rules(text, good):
    assert is_filter(text) is good


@pytest.mark.parametrize(
    ("text", "good"), [("a/b", True), ("/", True), ("", False), ("a/+", False), ("#", False), ("a\0", False)]
)
@pytest.mark.conforms(
    "MQTT-3.3.2-2",
    "MQTT-4.7.1-1",
    "MQTT-4.7.3-1",
    "MQTT-4.7.3-2",
    "MQTT5-4.7.0-1",
    "MQTT5-4.7.3-1",
    "MQTT5-4.7.3-2",
)
def test_a_topic_name_has_no_wildcard_and_no_nul(text, good):
    assert is_topic(text) is good


@pytest.mark.parametrize("root", ["$emqx/commands", "fleet"])
def test_what_a_worker_says_to_itself_is_nobody_elses(root):
    topics = Topics(root)
    assert topics.owns(topics.probe("thingctl-g-w1"))
    assert topics.parse(topics.probe("thingctl-g-w1")) is None
    assert topics.kinds(topics.probe("w"), "w") == frozenset()
    assert topics.shared_probe("w").endswith(topics.probe("w"))
