"""The API described for programs: OpenAPI 3.1, from the routes and from what ``calls`` tells of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from thingctl_broker.http.calls import OPERATIONS, Nothing, Operation, Parameter, Schema, Struct, Text
from thingctl_broker.http.errors import ProblemDetails
from thingctl_protocol import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from starlette.routing import Route

_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_SNAKE: Final = re.compile(r"_(\w)")
_REF: Final = "#/components/schemas/{name}"


def describe(routes: Iterable[Route]) -> bytes:
    """The document, encoded. Raises KeyError for a route that ``OPERATIONS`` does not know."""
    found = [
        (method, route, OPERATIONS[method, route.path])
        for route in routes
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]
    schemas, components = _schemas([operation for _, _, operation in found])
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
    summary = " ".join((route.endpoint.__doc__ or "").partition(": ")[2].split())
    error_type = _PROBLEM if operation.error is ProblemDetails else _JSON
    described: dict[str, Any] = {
        "operationId": _operation_id(method, route.path),
        "tags": [family if name else "Broker"],
        "summary": summary.removesuffix("."),
        "parameters": [
            *(
                {
                    "name": parameter,
                    "in": "path",
                    "required": True,
                    "schema": {"type": "string", "minLength": 1},
                }
                for parameter in re.findall(r"\{(\w+)\}", _camel(route.path))
            ),
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
        described["requestBody"] = {"required": True, "content": {_JSON: content}}
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
    description = " ".join(" ".join(struct.__doc__ or "" for struct in structs).split())
    return {"description": description, "content": {_JSON: {"schema": _one_of(answer, schemas)}}}


def _one_of(structs: Struct | tuple[Struct, ...], schemas: Mapping[Struct, Schema]) -> Schema:
    if isinstance(structs, tuple):
        return {"anyOf": [schemas[struct] for struct in structs]}
    return schemas[structs]


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
    return dict(zip(structs, references, strict=True)), components


def _describable(struct: Struct) -> Struct:
    """The struct itself; or, if it has encoded JSON as a default, one like it that says so in the open."""
    fields = msgspec.structs.fields(struct)
    if not any(isinstance(field.default, msgspec.Raw) for field in fields):
        return struct
    return msgspec.defstruct(
        struct.__name__,
        [
            (field.encode_name, dict[str, Any] if field.encode_name == "params" else Any, {})
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
    """
    return re.sub(r"\{[^}]*\}", lambda braced: _SNAKE.sub(lambda found: found[1].upper(), braced[0]), path)


def _operation_id(method: str, path: str) -> str:
    """A name for a call.

    >>> _operation_id("POST", "/api/v1/commands/{execution_id}/cancel")
    'postCommandsExecutionIdCancel'
    """
    words = re.findall(r"[A-Za-z0-9]+", path.removeprefix("/api/v1").replace("_", "-"))
    return method.lower() + "".join(word[:1].upper() + word[1:] for word in words)
