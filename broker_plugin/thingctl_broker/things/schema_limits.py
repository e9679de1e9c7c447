"""Whether a JSON Schema may be enforced here: no surprise in it, and no more work than it seems.

Schemas come from devices, too, and validation runs in the broker's loop. So only what is
bounded by its size is taken: references inside the document, no recursion, a bounded number
of subschemas after every reference has been followed. Patterns are bounded by the engine
(it takes linear time, see ``param_schemas``).
"""

from __future__ import annotations

from typing import Any, Final

from thingctl_protocol.json_pointer import escape, unescape

SCHEMA_NODES_MAX: Final = 2000
"""Subschemas of one schema, each reference counted as what it refers to."""

SCHEMA_DEPTH_MAX: Final = 64
"""Subschemas within each other."""

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

ONE: Final = frozenset(
    {
        "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames",
        "then", "unevaluatedItems", "unevaluatedProperties",
    }
)  # fmt: skip
"""Keywords whose value is a schema."""

LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
"""Keywords whose value is a list of schemas."""

MAPS: Final = frozenset({"dependentSchemas", "patternProperties", "properties"})
"""Keywords whose value maps names to schemas."""

DEFINITIONS: Final = frozenset({"$defs", "definitions"})

_REFUSED: Final = frozenset(
    {"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveRef", "$vocabulary"}
)


class SchemaFault(ValueError):
    """A schema that is not enforced. ``text``: one sentence. ``pointer``: where in the schema."""

    def __init__(self, text: str, pointer: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.pointer = pointer


def check_bounds(schema: object) -> None:
    """Raise :class:`SchemaFault` unless ``schema`` (decoded JSON) is bounded as the module says."""
    _Walk(schema).cost(schema, "", 0)


class _Walk:
    """One walk over one schema. The cost of what a reference refers to is found once."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._known: dict[str, int] = {}
        self._open: set[str] = set()

    def cost(self, schema: object, pointer: str, depth: int) -> int:
        """How many subschemas validation may go through."""
        if isinstance(schema, bool):
            return 1
        if not isinstance(schema, dict):
            raise SchemaFault("a schema is an object or a boolean", pointer)
        if depth > SCHEMA_DEPTH_MAX:
            raise SchemaFault(f"schemas more than {SCHEMA_DEPTH_MAX} deep", pointer)
        total = 1
        for keyword, value in schema.items():
            total += self._keyword(keyword, value, f"{pointer}/{escape(keyword)}", depth + 1)
            if total > SCHEMA_NODES_MAX:
                raise SchemaFault(f"more than {SCHEMA_NODES_MAX} subschemas, references followed", pointer)
        return total

    def _keyword(self, keyword: str, value: Any, pointer: str, depth: int) -> int:
        if keyword in _REFUSED:
            raise SchemaFault(f"{keyword} is not taken here", pointer)
        if keyword == "$schema" and str(value).rstrip("#") != DIALECT:
            raise SchemaFault(f"the dialect is {DIALECT}", pointer)
        if keyword == "$ref":
            return self._reference(value, pointer, depth)
        if keyword in ONE:
            return self.cost(value, pointer, depth)
        if keyword in LISTS and isinstance(value, list):
            return sum(self.cost(item, f"{pointer}/{i}", depth) for i, item in enumerate(value))
        if keyword in MAPS and isinstance(value, dict):
            return sum(self.cost(item, f"{pointer}/{escape(name)}", depth) for name, item in value.items())
        return 0  # an assertion, an annotation, or definitions, which cost where they are referred to

    def _reference(self, reference: Any, pointer: str, depth: int) -> int:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise SchemaFault("a reference stays within the schema: #/$defs/…", pointer)
        known = self._known.get(reference)
        if known is not None:
            return known
        if reference in self._open:
            raise SchemaFault("a schema that refers to itself", pointer)
        self._open.add(reference)
        found = self._known[reference] = self.cost(self._resolve(reference, pointer), reference[1:], depth)
        self._open.discard(reference)
        return found

    def _resolve(self, reference: str, pointer: str) -> object:
        target: Any = self._root
        for part in reference.split("/")[1:]:
            key = unescape(part)
            if isinstance(target, dict) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isascii() and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            else:
                raise SchemaFault("a reference to nothing", pointer)
        return target
