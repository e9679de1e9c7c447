"""The fields of an execution that stores keep, as the class :class:`Execution` declares them.

Whatever has one thing to say of each field loops over these: rows of SQLite and PostgreSQL, ``migrate``.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, Final, NamedTuple, get_args, get_type_hints

import msgspec

from thingctl_broker.commands.execution import Execution, Storage


class Field(NamedTuple):
    """A field that is stored. ``type``: without None."""

    name: str
    type: type
    storage: Storage
    default: Any
    """``msgspec.NODEFAULT``: a record always has it."""
    is_optional: bool


def _read_fields() -> tuple[Field, ...]:
    hints = get_type_hints(Execution, include_extras=True)
    found = []
    for field in msgspec.structs.fields(Execution):
        hint, *marks = get_args(hints[field.name]) or (hints[field.name],)
        storage = next((mark for mark in marks if isinstance(mark, Storage)), None)
        if storage is not None:
            kinds = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
            found.append(Field(field.name, kinds[0], storage, field.default, NoneType in get_args(hint)))
    return tuple(found)


FIELDS: Final = _read_fields()
"""In the order of their declaration."""

ONCE: Final = tuple(field for field in FIELDS if field.storage is Storage.ONCE)
STATE: Final = tuple(field for field in FIELDS if field.storage is Storage.STATE)
JOURNAL_STATE: Final = tuple(field for field in FIELDS if field.storage is not Storage.ONCE)
"""What the journal of one broker writes with each change."""
