"""A key stands for one command of one caller, as long as its execution is there."""

from itertools import combinations

import pytest

from broker_support import make_execution
from thingctl_broker.commands.idempotency import IdempotencyKeys, fingerprint
from thingctl_broker.errors import IdempotencyConflict


def keyed(key="k", caller="ann", print_="f"):
    return make_execution(idempotency_key=key, requested_by=caller, fingerprint=print_)


def test_a_key_finds_its_execution_again():
    keys, execution = IdempotencyKeys(), keyed()
    assert keys.find("ann", "k", "f") is None
    keys.remember(execution)
    assert keys.find("ann", "k", "f") is execution


def test_a_key_belongs_to_the_caller_who_used_it():
    keys = IdempotencyKeys()
    keys.remember(keyed())
    assert keys.find("bob", "k", "f") is None
    assert keys.find("ann", "other", "f") is None


def test_the_same_key_for_another_command_is_a_conflict():
    keys = IdempotencyKeys()
    keys.remember(keyed())
    with pytest.raises(IdempotencyConflict, match="another command"):
        keys.find("ann", "k", "g")


def test_a_key_goes_with_its_execution():
    keys, execution = IdempotencyKeys(), keyed()
    keys.remember(execution)
    keys.forget(execution)
    keys.forget(execution)
    assert keys.find("ann", "k", "g") is None


def test_what_has_no_key_is_not_remembered():
    keys, execution = IdempotencyKeys(), make_execution()
    keys.remember(execution)
    keys.forget(execution)
    assert keys.find("", "", "") is None
    assert keys._executions == {}


COMMANDS = [
    ("t", "a", b"{}", None),
    ("t", "a", b"{}", 60),
    ("t", "a", b'{"x":1}', None),
    ("t", "b", b"{}", None),
    ("ta", "", b"{}", None),
    ("t", "a\ud800", b"{}", None),
]


@pytest.mark.parametrize(("one", "other"), list(combinations(COMMANDS, 2)))
def test_other_commands_have_other_fingerprints(one, other):
    assert fingerprint(*one) != fingerprint(*other)
    assert fingerprint(*one) == fingerprint(*one)
