"""The fields that stores keep are those that the class declares."""

import msgspec

from thingctl_broker.commands.execution import Execution, Late, Storage
from thingctl_broker.commands.execution_fields import FIELDS, JOURNAL_STATE, ONCE, STATE
from thingctl_protocol.messages import Progress, StatusReason


def test_all_but_the_key_and_what_is_worked_out_anew_is_stored():
    stored = {field.name for field in FIELDS}
    worked_out = {"deadline", "cancel_deadline", "kept"}
    assert set(Execution.__struct_fields__) - stored == {"execution_id", "status"} | worked_out


def test_the_head_of_a_row_only_grows_at_its_end():
    """It is an array: a row that an earlier version wrote has the first of these."""
    assert [field.name for field in ONCE][:10] == [
        "command_id", "thing", "action", "params", "ttl", "created_at",
        "requested_by", "idempotency_key", "fingerprint", "post_back_uri",
    ]  # fmt: skip


def test_what_follows_the_first_row_has_a_default():
    """An earlier version did not write it."""
    assert all(field.default is not msgspec.NODEFAULT for field in JOURNAL_STATE)
    assert {field.storage for field in STATE} == {Storage.STATE}


def test_types_are_told_without_none():
    kinds = {field.name: (field.type, field.is_optional) for field in FIELDS}
    assert kinds["params"] == (bytes, False)
    assert kinds["late"] == (Late, True)
    assert kinds["reason"] == (StatusReason, True)
    assert kinds["progress"] == (Progress, True)
    assert kinds["ended_at"] == (float, True)
