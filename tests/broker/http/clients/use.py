"""Sends, adds and lists with the generated client, named ``client`` here. Prints what came back as JSON."""

import datetime as dt
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

from client import AuthenticatedClient
from client.api.commands import get_commands, post_commands
from client.api.things import get_things, patch_things_name, post_things, post_things_name_password
from client.api.tokens import post_tokens
from client.models import (
    CommandBody,
    CommandBodyParamsType0,
    NewThingBody,
    ProblemDetails,
    ThingPatch,
    TokenBody,
)
from client.models.token_body_scopes_item import TokenBodyScopesItem

caller = AuthenticatedClient(base_url=os.environ["URL"], token=os.environ["TOKEN"])
params = CommandBodyParamsType0.from_dict({"value": 24})
sent = post_commands.sync(client=caller, body=CommandBody("lamp", "set", params=params))
plain = post_commands.sync(client=caller, body=CommandBody("lamp", "turnOn"))
added = post_things.sync(client=caller, body=NewThingBody("added"))
changed = patch_things_name.sync("added", client=caller, body=ThingPatch(description="generated"))
renewed = post_things_name_password.sync("added", client=caller)
expiry = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
scopes = [TokenBodyScopesItem("commands:read")]
token = post_tokens.sync(client=caller, body=TokenBody("reader", scopes, expires_at=expiry))
things = get_things.sync(client=caller, limit=10)
executions = get_commands.sync(client=caller, thing_id="lamp")
refused = post_commands.sync(client=caller, body=CommandBody("lamp", "?"))
print(
    json.dumps(
        {
            "params": sent.params.to_dict(),
            "created": isinstance(plain.created_at, dt.datetime),
            "hasPassword": bool(added.credentials.password),
            "isRenewed": renewed.credentials.password != added.credentials.password,
            "description": changed.description,
            "expires": token.expires_at == expiry,
            "things": [thing.name for thing in things.things],
            "actions": sorted(execution.action for execution in executions.executions),
            "pointer": refused.pointer if isinstance(refused, ProblemDetails) else None,
        }
    )
)
