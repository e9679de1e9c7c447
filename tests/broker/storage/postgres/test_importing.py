"""What comes from elsewhere: every field of an execution has its column."""

from broker.storage.postgres.stores import plain
from broker_support import make_execution
from thingctl_broker.commands.execution import Execution
from thingctl_broker.storage.postgres.execution_rows import COLUMNS
from thingctl_broker.storage.postgres.importing import _TYPES


def test_no_field_is_forgotten_when_one_is_added():
    """Deadlines are worked out, a wish to cancel is carried out before the import (``app.migrate``).

    ``late`` and ``untold`` have columns of other names.
    """
    fields = set(plain(make_execution())) - {"late", "untold", "cancel_wanted_at"}
    assert set(Execution.__struct_fields__) - fields == {
        "deadline",
        "cancel_deadline",
        "cancel_wanted_at",
        "kept",
        "late",
        "untold",
    }
    late = {f"late_{part}" for part in ("status", "at", "delay", "result", "reason")}
    assert set(COLUMNS) == fields | late | {"tell_at"}
    assert set(_TYPES) == set(COLUMNS) | {"due_at", "retry_at", "unhanded_since"}
