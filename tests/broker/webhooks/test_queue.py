"""Posts to other systems: which is due when, and where one may go."""

from __future__ import annotations

import base64
import hmac

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from thingctl_broker.security.outbound_urls import check_uri, is_public
from thingctl_broker.webhooks.queue import (
    ATTEMPTS_MAX,
    BACKOFF,
    PER_TARGET,
    WAIT_MAX,
    Key,
    PostQueue,
    delivery_id,
    sign,
    sign_standard,
)

KEY = Key("https://a.example/hook", "e1")


def test_a_post_is_due_at_once_and_only_once():
    outbox = PostQueue()
    assert outbox.next_at() is None
    assert outbox.note(KEY, 5.0)
    assert outbox.note(KEY, 6.0)
    assert outbox.next_at() == 5.0
    assert outbox.take(5.0, 10) == [KEY]
    assert outbox.take(9.0, 10) == []
    assert outbox.delivered(KEY, 9.0)
    assert len(outbox) == 0


def test_what_happens_meanwhile_is_told_next():
    outbox = PostQueue()
    outbox.note(KEY, 0.0)
    outbox.take(0.0, 10)
    outbox.note(KEY, 1.0)
    assert not outbox.delivered(KEY, 2.0)
    assert outbox.take(2.0, 10) == [KEY]
    assert outbox.delivered(KEY, 3.0)


def test_before_each_try_up_to_twice_as_long():
    outbox = PostQueue()
    outbox.note(KEY, 0.0)
    now, delays = 0.0, []
    for _ in range(ATTEMPTS_MAX - 1):
        assert outbox.take(now, 1) == [KEY]
        delay = outbox.failed(KEY, now, 1.0)
        delays.append(delay)
        assert outbox.take(now + delay - 0.01, 1) == []
        now += delay
    assert delays[:4] == [2.0, 4.0, 8.0, 16.0]
    assert max(delays) == BACKOFF.longest
    assert outbox.take(now, 1) == [KEY]
    assert outbox.failed(KEY, now, 1.0) is None
    assert KEY not in outbox


def test_by_chance_it_may_be_at_once():
    outbox = PostQueue()
    outbox.note(KEY, 0.0)
    outbox.take(0.0, 1)
    assert outbox.failed(KEY, 0.0, 0.0) == 0.0


def test_in_vain_is_in_vain():
    outbox = PostQueue()
    outbox.note(KEY, 0.0)
    outbox.take(0.0, 1)
    assert outbox.failed(KEY, 0.0, 1.0, final=True) is None
    assert len(outbox) == 0


def test_one_target_does_not_take_all_the_room():
    outbox = PostQueue()
    slow = [Key("https://slow.example", f"e{i}") for i in range(PER_TARGET + 1)]
    for key in (*slow, KEY):
        outbox.note(key, 0.0)
    assert outbox.take(0.0, 100) == [*slow[:PER_TARGET], KEY]
    outbox.delivered(slow[0], 1.0)
    assert outbox.take(1.0, 100) == [slow[PER_TARGET]]


def test_bounded():
    outbox = PostQueue(1)
    assert outbox.note(KEY, 0.0)
    assert outbox.note(KEY, 0.0)
    assert not outbox.note(Key("https://b.example", "e1"), 0.0)


class Model(RuleBasedStateMachine):
    """Whatever happens: nothing is sent twice at once, nothing that was noted is forgotten."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.outbox = PostQueue(6)
        self.owed, self.under_way = set(), []

    @rule(where=st.sampled_from("ab"), execution=st.integers(0, 6))
    def note(self, where, execution):
        key = Key(where, str(execution))
        if self.outbox.note(key, self.now):
            self.owed.add(key)
        else:
            assert len(self.outbox) == 6

    @rule(limit=st.integers(0, 5))
    def take(self, limit):
        taken = self.outbox.take(self.now, limit)
        assert not set(taken) & set(self.under_way)
        self.under_way += taken

    @precondition(lambda self: self.under_way)
    @rule()
    def deliver(self):
        key = self.under_way.pop(0)
        if self.outbox.delivered(key, self.now):
            self.owed.discard(key)

    @precondition(lambda self: self.under_way)
    @rule(chance=st.floats(0, 1), final=st.booleans())
    def fail(self, chance, final):
        key = self.under_way.pop()
        if self.outbox.failed(key, self.now, chance, final=final) is None:
            self.owed.discard(key)

    @rule(seconds=st.sampled_from([0.01, 1.0, 4000.0]))
    def pass_time(self, seconds):
        self.now += seconds

    @invariant()
    def it_holds(self):
        assert all(key in self.outbox for key in self.owed)
        assert len(self.outbox) == len(self.owed)
        if set(self.owed) - set(self.under_way):
            assert self.outbox.next_at() is not None


TestOutbox = Model.TestCase


@pytest.mark.parametrize(
    "uri", ["https://a.example", "http://a.example:8080/x?y=z", "https://[2001:db8::1]/", "http://1.2.3.4/"]
)
def test_where_a_post_can_go(uri):
    assert check_uri(uri) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "postbackURI",
        "ftp://a.example",
        "https:///path",
        "https://user:pass@a.example",
        "https://a.example/#x",
        "https://a.example/\r\nX: y",
        "https://a.example/ x",
        "https://\xe4.example",
        "https://a.example:99999",
        "https://a.example:0",
        "https://[::1",
        "https://a.example/" + "x" * 2048,
    ],
)
def test_where_it_cannot(uri):
    with pytest.raises(ValueError):
        check_uri(uri)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "fc00::1",
        "fe80::1%eth0",
        "ff02::1",
    ],
)
def test_private_addresses_whatever_they_are_wrapped_in(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(address):
    assert is_public(address)


def test_a_signature_is_of_time_and_body():
    signatures = {sign(b"k", 1, b"{}"), sign(b"k", 2, b"{}"), sign(b"k", 1, b"[]"), sign(b"l", 1, b"{}")}
    assert len(signatures) == 4


def test_a_target_that_asks_to_wait_gets_nothing_before():
    outbox = PostQueue()
    first, second, other = Key("a", "1"), Key("a", "2"), Key("b", "1")
    for key in (first, second, other):
        outbox.note(key, 0.0)
    assert outbox.take(0.0, 1) == [first]
    assert outbox.failed(first, 0.0, 0.5, wait=30.0) == 31.0
    assert outbox.take(0.0, 9) == [other]
    assert outbox.take(29.9, 9) == []
    assert outbox.next_at() == 30.0
    assert outbox.take(30.0, 9) == [second]
    assert outbox.take(31.0, 9) == [first]
    assert outbox.failed(first, 31.0, 0.0, wait=1e12) == WAIT_MAX


def test_standard_signatures_are_those_of_the_specification():
    """With its own example, and a secret that is written as its libraries write it."""
    secret = b"whsec_plJ3nmyCDGBKInavdOK15jsl"
    body = b'{"event_type":"ping","data":{"success":true}}'
    signature = sign_standard(secret, "msg_loFOjxBNrRLzqYUf", 1731705121, body)
    key = base64.b64decode(secret.removeprefix(b"whsec_"))
    expected = hmac.digest(key, b"msg_loFOjxBNrRLzqYUf.1731705121." + body, "sha256")
    assert signature == "v1," + base64.b64encode(expected).decode()
    with pytest.raises(ValueError, match=r"base64|padding"):
        sign_standard(b"whsec_?", "", 0, b"")


def test_a_repeat_has_the_id_of_the_first_post_and_no_other_has():
    assert delivery_id("1", b"a") == delivery_id("1", b"a")
    assert len({delivery_id("1", b"a"), delivery_id("2", b"a"), delivery_id("1", b"b")}) == 3
