"""What is told of each call is so: the parameters that it takes, and how it tells a fault."""

from __future__ import annotations

import re

import pytest

from thingctl_broker.http.endpoint_specs import OPERATIONS, Operation
from thingctl_broker.http.problems import ProblemDetails


@pytest.mark.parametrize(
    ("method", "path"),
    sorted(key for key in OPERATIONS if OPERATIONS[key].authorization == "header"),
    ids=lambda value: value,
)
def test_the_parameters_that_are_told_are_those_that_the_call_knows(api, method, path):
    """Asked for one that nobody knows, a call lists those that it does."""
    target = re.sub(r"\{[^}]+\}", "lamp", path) + "?nonsense=1"
    reply = api.request(method, target, {} if method in {"POST", "PUT", "PATCH"} else None)
    assert reply.status == 400, reply
    detail = reply.json["detail"] if "detail" in reply.json else reply.json["error"]["message"]
    known = detail.partition("; there are ")[2]
    told = {p.name for p in OPERATIONS[method, path].parameters if p.place == "query"}
    assert set(filter(None, known.split(", "))) == told


def test_one_error_shape_but_for_the_dialects():
    """Every call of this API's own tells every fault as RFC 9457 problem details."""
    for (_, path), operation in OPERATIONS.items():
        own = path.startswith(("/api/v1/", "/healthz", "/readyz", "/metrics", "/openapi.json"))
        assert (operation.error is ProblemDetails) == own, path


def test_a_route_that_nobody_has_described_is_an_error():
    assert isinstance(OPERATIONS["GET", "/healthz"], Operation)
    with pytest.raises(KeyError):
        OPERATIONS["GET", "/nowhere"]
