"""docs/protocol.md says what the code does: its tables, its examples, its device."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from thingctl_broker.commands.delivery import QUEUE_MAX, WINDOW
from thingctl_broker.commands.execution import TIMED_OUT
from thingctl_broker.commands.validation import ServiceSettings
from thingctl_protocol import limits
from thingctl_protocol.messages import (
    check_json_object,
    decode_announcement,
    decode_presence,
    decode_request,
    decode_response,
    decode_time,
    encode_request,
)
from thingctl_protocol.statuses import DEVICE_STATUSES, TERMINAL, TRANSITIONS, Delivery, Status
from thingctl_protocol.topics import DEVICE_KINDS, Kind, Topics

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
DECODERS = {
    "request": decode_request,
    "response": decode_response,
    "cancel": check_json_object,
    "actions": decode_announcement,
    "time": decode_time,
    "presence": decode_presence,
}
EXAMPLES = re.findall(r"<!-- (\w+) -->\n```json\n(.*?)```", PAGE, re.DOTALL)


def table(first_header, *, section):
    """The rows of the table in ``section`` whose first column is so headed, as dicts without backticks."""
    parts = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    text = next(part for part in parts if part.startswith(f"{section}\n"))
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        header, _, *rows = (
            [cell.strip(" `") for cell in line[1:-1].split("|")] for line in block.splitlines()
        )
        if header[0] == first_header:
            return [dict(zip(header, row, strict=True)) for row in rows]
    raise LookupError(first_header)


def test_the_topics_are_the_codes():
    rows = table("topic", section="Topics")
    topics = Topics()
    built = {
        "request": topics.request("{thing}", "{executionId}"),
        "response": topics.response("{thing}", "{executionId}"),
        "cancel": topics.cancel("{thing}", "{executionId}"),
        "actions": topics.actions("{thing}"),
        "time": topics.time("{thing}"),
        "presence": topics.presence("{thing}"),
    }
    assert set(built) == set(Kind)
    assert [row["topic"] for row in rows] == list(built.values())
    by_device = {row["topic"].rpartition("/")[2] for row in rows if row["sent by"].startswith("device")}
    assert by_device == DEVICE_KINDS
    assert topics.request_filter("{thing}") in PAGE


def test_the_statuses_are_the_codes_and_their_speakers_too():
    rows = table("status", section="Statuses")
    assert [row["status"] for row in rows] == list(Status)
    assert {row["status"] for row in rows if "device" in row["said by"]} == DEVICE_STATUSES
    assert [row["status"] for row in rows[-5:]] == [status for status in Status if status in TERMINAL]


def test_the_transitions_are_the_codes():
    rows = table("from", section="Statuses")
    stated = {(row["from"], to) for row in rows for to in Status if row[to] == "yes"}
    assert [row["from"] for row in rows] == list(Status)
    assert stated == {(status, to) for status, row in TRANSITIONS.items() for to in row}


def test_the_delivery_words_and_their_reasons_are_the_codes():
    rows = table("delivery", section="Delivery")
    stated = {row["delivery"]: row["on a time-out, the reason code"] for row in rows}
    assert list(stated) == list(Delivery)
    assert stated == {delivery: reason.reason_code for delivery, reason in TIMED_OUT.items()}


def test_the_limits_are_the_codes():
    stated = {row["limit"]: int(row["value"].replace(",", "")) for row in table("limit", section="Limits")}
    assert stated == {name: value for name, value in vars(limits).items() if name.isupper()}


def test_the_defaults_are_the_codes():
    stated = {
        row["default"]: int(row["value"].replace(",", "")) for row in table("default", section="Limits")
    }
    grace = ServiceSettings().cancel_grace
    assert stated == {"WINDOW": WINDOW, "QUEUE_MAX": QUEUE_MAX, "CANCEL_GRACE": grace}


@pytest.mark.parametrize(("kind", "text"), EXAMPLES)
def test_every_example_decodes(kind, text):
    DECODERS[kind](text.encode())


def test_every_kind_of_message_has_its_example_and_no_example_is_left_out():
    assert {kind for kind, _ in EXAMPLES} == set(Kind)
    assert len(EXAMPLES) == PAGE.count("```json")


def test_the_request_in_the_page_is_what_the_encoder_writes():
    text = next(text for kind, text in EXAMPLES if kind == "request")
    fields = json.loads(text)
    encoded = encode_request(
        command_id=fields["commandId"],
        action=fields["action"],
        params=json.dumps(fields["params"], separators=(",", ":")).encode(),
        timestamp=fields["timestamp"],
        ttl=fields["ttl"],
    )
    assert encoded == json.dumps(fields, separators=(",", ":")).encode()


class OneRequestClient:
    """Stands in for paho's client: hands the device its requests and keeps what it publishes."""

    def __init__(self, requests):
        self.requests = requests
        self.subscribed = []
        self.published = []

    def connect(self, host, port):
        self.address = (host, port)

    def subscribe(self, topic_filter, qos):
        self.subscribed.append((topic_filter, qos))

    def publish(self, topic, payload, qos):
        self.published.append((topic, payload.encode(), qos))

    def loop_forever(self):
        self.on_connect(self, None, None, None, None)
        for topic, payload in self.requests:
            self.on_message(self, None, SimpleNamespace(topic=topic, payload=payload))


@pytest.mark.parametrize(
    ("action", "timestamp", "status"),
    [
        ("setTemperature", 1e12, Status.SUCCEEDED),
        ("setTemperature", 1, Status.REJECTED),
        ("dance", 1e12, Status.REJECTED),
    ],
)
def test_the_device_in_the_page_answers_and_answers_a_repeat_alike(monkeypatch, action, timestamp, status):
    source = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    assert len([line for line in source.splitlines() if line.strip()]) <= 27
    request = encode_request(
        command_id="c", action=action, params=b'{"value":24}', timestamp=int(timestamp), ttl=30
    )
    topics = Topics()
    client = OneRequestClient([(topics.request("thermostat-001", "0193"), request)] * 2)
    monkeypatch.setattr("paho.mqtt.client.Client", lambda *args, **fields: client)
    exec(compile(source, "docs/protocol.md", "exec"), {})
    assert client.subscribed == [(topics.request_filter("thermostat-001"), 1)]
    assert [(topic, qos) for topic, _, qos in client.published] == [
        (topics.response("thermostat-001", "0193"), 1)
    ] * 2
    first, second = (decode_response(payload) for _, payload, _ in client.published)
    assert first.status is status
    assert (second.status, bytes(second.result)) == (first.status, bytes(first.result))


def test_the_links_within_the_page_lead_somewhere():
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
