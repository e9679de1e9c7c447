"""Schemathesis' checks for this API: the command line loads this module by ``SCHEMATHESIS_HOOKS``.

The checks here stand in for those of the same purpose. They pass the answers that no JSON Schema
can foresee: rules between two fields, bodies that are too large, and a dialect that answers 400 for
states of the broker.
"""

from __future__ import annotations

import json
import os
import re

import schemathesis
from schemathesis.checks import CHECKS

from thingctl_broker.http.api.tokens import TOKENS
from thingctl_broker.http.query import WAIT_MAX
from thingctl_broker.security.tokens import ADMIN

REPLACED = (
    "positive_data_acceptance",
    "negative_data_rejection",
    "ensure_resource_availability",
    "unsupported_method",
)
NO_TOKEN = "nobody"
"""Deleted in place of the token that this run calls with."""

TOO_LARGE = 413

BEYOND_SCHEMAS = re.compile(
    "no thing type is named|no thing is named|no thing matches these targets"
    "|targets are told by one of|there is no thing|there is no tag"
    "|a command to many things does not wait|an Idempotency-Key is for a command to one thing"
    "|a thing without a password is given none|a token with the scope .* is not limited"
    "|it would have expired already|the action .* is there twice|the request is [0-9]+ bytes long"
    "|the nextCursor of an earlier answer in this order"
    "|got `number`|Port out of range|does not appear to be an IPv4 or IPv6"  # 60.0 is an integer to JSON Schema
    "|paramsSchema|resultSchema|a schema"  # whatever is wrong with a schema in the body
)
BEYOND_NAVIXYS = re.compile(
    "give device_id or tracker_id|not hexadecimal digits|that is an object|params|got `number`"
)
DIALECT_OF_400 = "/v2/"
UNREADABLE = {3, 5, 7}
"""Navixy's codes for a request that could not be read. The others tell a state."""


@schemathesis.hook
def before_call(context, case, kwargs):
    """Bring the token to where Navixy's clients have it, shorten waits, keep the caller's token."""
    if case.method == "DELETE" and case.path.startswith(TOKENS) and case.path_parameters.get("name") == ADMIN:
        case.path_parameters["name"] = NO_TOKEN
    if case.path.startswith(DIALECT_OF_400) and isinstance(case.body, dict):
        case.body["hash"] = os.environ["THINGCTL_TEST_TOKEN"]
    wait = (case.query or {}).get("wait")
    if isinstance(wait, int | float) and 1 < wait <= WAIT_MAX:
        case.query["wait"] = 1 / wait  # as valid, and sooner over


def is_beyond_schemas(reply, case):
    """Whether the refusal follows from more than the request's schema."""
    told = json.loads(reply.content)
    if not case.path.startswith(DIALECT_OF_400):
        text = f"{told.get('pointer', '')} {told.get('detail', told.get('error'))}"
        return BEYOND_SCHEMAS.search(text) is not None
    return told["status"]["code"] not in UNREADABLE or BEYOND_NAVIXYS.search(str(told)) is not None


@schemathesis.check
def valid_data_is_taken(ctx, response, case):
    """What the schema allows is refused only by a rule that a schema cannot tell."""
    if response.status_code == TOO_LARGE or (
        response.status_code == 400 and is_beyond_schemas(response, case)
    ):
        return None
    return CHECKS.get_one("positive_data_acceptance")(ctx, response, case)


@schemathesis.check
def invalid_data_is_refused(ctx, response, case):
    """A body beyond the bound is refused before it is read."""
    if response.status_code == TOO_LARGE:
        return None
    return CHECKS.get_one("negative_data_rejection")(ctx, response, case)


@schemathesis.check
def other_methods_are_refused(ctx, response, case):
    """405; Navixy's dialect answers every wrong method with its code 112."""
    if case.path.startswith(DIALECT_OF_400):
        return None
    return CHECKS.get_one("unsupported_method")(ctx, response, case)


@schemathesis.check
def what_was_created_is_there(ctx, response, case):
    """But for the name that the hook has put in."""
    if (case.path_parameters or {}).get("name") == NO_TOKEN:
        return None
    return CHECKS.get_one("ensure_resource_availability")(ctx, response, case)
