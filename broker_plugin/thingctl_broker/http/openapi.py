"""The API described for programs: OpenAPI 3.1, from the routes and from what ``calls`` tells of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from thingctl_broker.http.endpoint_specs import (
    OPERATIONS,
    Nothing,
    Operation,
    Parameter,
    Schema,
    Struct,
    Text,
    path_schema,
)
from thingctl_broker.http.problems import ProblemDetails
from thingctl_protocol import __version__
from thingctl_protocol.limits import TTL_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from starlette.routing import Route

_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_SNAKE: Final = re.compile(r"_(\w)")
_MARKUP: Final = re.compile(r"``|:class:|`")
_CONVERTOR: Final = re.compile(r":\w+(?=\})")
"""In a route's path: what a parameter may be."""

_NO_VALUES: Final[tuple[Any, ...]] = (None, "", (), [], {})
"""Defaults that need no words."""

_REF: Final = "#/components/schemas/{name}"


def describe(routes: Iterable[Route], ttl_max: int = TTL_MAX) -> bytes:
    """The document, encoded. ``ttl_max``: seconds, the longest TTL that this broker takes.

    Raises KeyError for a route that ``OPERATIONS`` does not know.
    """
    found = [
        (method, route, OPERATIONS[method, route.path])
        for route in routes
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]
    schemas, components = _schemas([operation for _, _, operation in found])
    for component in components.values():
        _limit_ttl(component, ttl_max)
    paths: dict[str, dict[str, Any]] = {}
    for method, route, operation in found:
        paths.setdefault(_camel(route.path), {})[method.lower()] = _operation(
            method, route, operation, schemas
        )
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "thingctl",
                "version": __version__,
                "description": "Send commands to devices over MQTT and know what became of each one.",
            },
            "servers": [{"url": "./"}],
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"token": []}],
        }
    )


def _operation(
    method: str, route: Route, operation: Operation, schemas: Mapping[Struct, Schema]
) -> dict[str, Any]:
    family, _, name = route.endpoint.__qualname__.partition(".")
    summary = _plain((route.endpoint.__doc__ or "").partition(": ")[2])
    error_type = _PROBLEM if operation.error is ProblemDetails else _JSON
    described: dict[str, Any] = {
        "operationId": _operation_id(method, route.path),
        "tags": [family if name else "Broker"],
        "summary": summary[:1].upper() + summary[1:].removesuffix("."),
        "parameters": [
            *(_in_path(name, route.path) for name in re.findall(r"\{(\w+)\}", _camel(route.path))),
            *(_parameter(parameter) for parameter in operation.parameters),
        ],
        "responses": {
            **{str(status): _answer(answer, schemas) for status, answer in operation.answers.items()},
            "default": {
                "description": "a fault",
                "content": {error_type: {"schema": schemas[operation.error]}},
            },
        },
    }
    if operation.body is not None:
        content = {"schema": _one_of(operation.body, schemas)}
        described["requestBody"] = {"required": operation.needs_body, "content": {_JSON: content}}
    if operation.authorization != "header":
        described["security"] = []
    return described


def _answer(
    answer: Struct | tuple[Struct, ...] | Text | Nothing | None, schemas: Mapping[Struct, Schema]
) -> dict[str, Any]:
    if isinstance(answer, Nothing):
        return {"description": answer.description}
    if isinstance(answer, Text):
        content = {"schema": {"type": "string"}}
        return {"description": answer.description, "content": {answer.media_type: content}}
    if answer is None:
        return {"description": "any JSON", "content": {_JSON: {"schema": {}}}}
    structs = answer if isinstance(answer, tuple) else (answer,)
    description = _plain(" ".join(struct.__doc__ or "" for struct in structs))
    return {"description": description, "content": {_JSON: {"schema": _one_of(answer, schemas)}}}


def _one_of(structs: Struct | tuple[Struct, ...], schemas: Mapping[Struct, Schema]) -> Schema:
    if isinstance(structs, tuple):
        return {"anyOf": [schemas[struct] for struct in structs]}
    return schemas[structs]


def _in_path(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": path_schema(name, path)}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "schema": parameter.schema,
        **({"style": "form", "explode": True} if parameter.repeated else {}),
    }


def _schemas(
    operations: Sequence[Operation],
) -> tuple[dict[Struct, Schema], dict[str, Schema]]:
    """For each struct that the operations use a reference to its schema; and those schemas."""
    structs: dict[Struct, None] = {}
    for operation in operations:
        for used in (operation.body, operation.error, *operation.answers.values()):
            if isinstance(used, type):
                structs[used] = None
            elif used is not None and not isinstance(used, Text | Nothing):
                structs |= dict.fromkeys(used)
    references, components = msgspec.json.schema_components(
        [_describable(struct) for struct in structs], ref_template=_REF
    )
    return dict(zip(structs, references, strict=True)), {
        name: _for_generators(schema) for name, schema in components.items()
    }


def _for_generators(schema: Schema) -> Schema:
    """Return the schema as generators of clients need it.

    An object without properties takes any. No field has a ``default``: generators take a field with
    one for always there. The description says it instead.
    """
    told = {key: _inner(key, value) for key, value in schema.items() if key != "default"}
    if told.get("additionalProperties") == {}:
        told["additionalProperties"] = True
    if schema.get("type") == "object" and "properties" not in schema:
        told.setdefault("additionalProperties", True)
    if schema.get("default") not in _NO_VALUES:
        told["description"] = f"When left out: {msgspec.json.encode(schema['default']).decode()}."
    if "description" in schema:
        told["description"] = _plain(schema["description"])
    return told


def _limit_ttl(schema: Schema, ttl_max: int) -> None:
    """Set the maximum of the field ``ttl``, where it has one: in what callers send."""
    field = schema.get("properties", {}).get("ttl", {})
    for choice in (field, *field.get("anyOf", ())):
        if "maximum" in choice:
            choice["maximum"] = ttl_max


def _inner(key: str, value: Any) -> Any:
    if key == "properties":
        return {name: _for_generators(schema) for name, schema in value.items()}
    if isinstance(value, dict):
        return _for_generators(value)
    if key in {"anyOf", "allOf", "oneOf", "prefixItems"}:
        return [_for_generators(schema) for schema in value]
    return value


def _plain(docstring: str) -> str:
    r"""Return the text of a docstring on one line, without its markup.

    >>> _plain("Send ``x``;\n    raises :class:`Problem`.")
    'Send x; raises Problem.'
    """
    return " ".join(_MARKUP.sub("", docstring).split())


def _describable(struct: Struct) -> Struct:
    """The struct itself; or, if a default is encoded JSON, one like it without that default."""
    fields = msgspec.structs.fields(struct)
    if not any(isinstance(field.default, msgspec.Raw) for field in fields):
        return struct
    return msgspec.defstruct(
        struct.__name__,
        [
            (field.encode_name, field.type, msgspec.UNSET)
            if isinstance(field.default, msgspec.Raw)
            else (field.encode_name, field.type, *(() if field.required else (field.default,)))
            for field in fields
        ],
        namespace={"__doc__": struct.__doc__},
        kw_only=True,
        forbid_unknown_fields=struct.__struct_config__.forbid_unknown_fields,
    )


def _camel(path: str) -> str:
    """A route's path with its parameters named as everything in the API is.

    >>> _camel("/commands/{execution_id}/cancel")
    '/commands/{executionId}/cancel'
    >>> _camel("/clients/{client_id:path}")
    '/clients/{clientId}'
    """
    path = _CONVERTOR.sub("", path)
    return re.sub(r"\{[^}]*\}", lambda braced: _SNAKE.sub(lambda found: found[1].upper(), braced[0]), path)


def _operation_id(method: str, path: str) -> str:
    """A name for a call.

    >>> _operation_id("POST", "/api/v1/commands/{execution_id}/cancel")
    'postCommandsExecutionIdCancel'
    """
    path = _CONVERTOR.sub("", path)
    words = re.findall(r"[A-Za-z0-9]+", path.removeprefix("/api/v1").replace("_", "-"))
    return method.lower() + "".join(word[:1].upper() + word[1:] for word in words)
