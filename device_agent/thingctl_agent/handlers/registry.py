"""Actions and the functions behind them.

A function's signature is its contract: its parameters become a ``msgspec.Struct``
that refuses unknown fields, and both its parameters and its return type become the
JSON Schemas that the agent announces. What cannot work is refused at registration.
"""

from __future__ import annotations

import contextlib
import typing
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from thingctl_agent.errors import RegistrationError
from thingctl_agent.handlers import signature
from thingctl_agent.handlers.context import Context
from thingctl_agent.handlers.policy import Policy, make_policy
from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.identifiers import check_action_name
from thingctl_protocol.json_pointer import pointer_of, split_fault
from thingctl_protocol.messages import ActionDescription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    F = TypeVar("F", bound=Callable[..., Any])


class InvalidParamsError(Exception):
    """Params that do not fit the action. ``pointer``: the RFC 6901 pointer into them."""

    def __init__(self, text: str, pointer: str) -> None:
        super().__init__(text)
        self.text = text
        self.pointer = pointer


class Action(msgspec.Struct, frozen=True, gc=False):
    """A function that answers commands, and all that is known of it."""

    name: str
    function: Callable[..., Any]
    is_async: bool
    params: type[msgspec.Struct]
    context_parameter: str | None
    decoder: msgspec.json.Decoder[Any]
    description: ActionDescription
    policy: Policy

    def decode(self, params: bytes) -> Any:
        """Validate encoded params; raises :class:`InvalidParamsError`."""
        try:
            return self.decoder.decode(params)
        except msgspec.ValidationError as error:
            with contextlib.suppress(msgspec.MsgspecError, ValueError, OverflowError):
                return self.decoder.decode(msgspec.json.encode(_integral(msgspec.json.decode(params))))
            text, path = split_fault(str(error))
            raise InvalidParamsError(text, pointer_of(path)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise InvalidParamsError(f"not JSON: {error}", "") from None

    def arguments(self, params: Any, context: Context) -> dict[str, Any]:
        """The keyword arguments of one call."""
        arguments = {name: getattr(params, name) for name in self.params.__struct_fields__}
        if self.context_parameter is not None:
            arguments[self.context_parameter] = context
        return arguments


class Registry:
    """The actions of one agent, by name."""

    def __init__(self) -> None:
        self._actions: dict[str, Action] = {}
        self._hooks: dict[str, list[Callable[[], Any]]] = {"start": [], "stop": []}

    def add(self, function: Callable[..., Any], name: str | None = None, **options: Any) -> Action:
        """Register ``function``; raises :class:`RegistrationError`.

        ``name``: the action's, the function's own when not given. ``options``: see
        :class:`~thingctl_agent.handlers.policy.Policy`.
        """
        own_name = getattr(function, "__name__", type(function).__name__)
        try:
            name = check_action_name(own_name if name is None else name)
            policy = make_policy(**options)
        except (ProtocolError, RegistrationError) as error:
            raise RegistrationError(f"{own_name}: {error}") from None
        if name in self._actions:
            raise RegistrationError(f"there is an action named {name!r} already")
        action = self._actions[name] = _describe(function, name, policy)
        return action

    def extend(self, other: Registry) -> None:
        """Take over the actions of another registry; raises :class:`RegistrationError`."""
        for action in other:
            known = self._actions.get(action.name)
            if known is not None and known is not action:
                raise RegistrationError(f"there is an action named {action.name!r} already")
            self._actions[action.name] = action
        for when, hooks in self._hooks.items():
            hooks += [hook for hook in other.hooks(when) if hook not in hooks]

    def add_hook(self, when: str, function: Callable[[], Any]) -> None:
        """Register a function for the agent's ``start`` or ``stop``; raises :class:`RegistrationError`."""
        name = getattr(function, "__name__", type(function).__name__)
        with contextlib.suppress(TypeError):  # no Python function: the call will show
            if signature.REQUIRED in signature.parameters(function).values():
                raise RegistrationError(f"{name}: what is called at the agent's {when} has no parameters")
        if signature.is_generator(function):
            raise RegistrationError(f"{name}: a generator cannot be called at the agent's {when}")
        self._hooks[when].append(function)

    def hooks(self, when: str) -> list[Callable[[], Any]]:
        """The functions for the agent's ``"start"`` or ``"stop"``, in the order of their registration."""
        return list(self._hooks[when])

    def get(self, name: str) -> Action | None:
        """The action of that name, if there is one."""
        return self._actions.get(name)

    def __iter__(self) -> Iterator[Action]:
        return iter(self._actions.values())

    def __len__(self) -> int:
        return len(self._actions)


def _describe(function: Callable[..., Any], name: str, policy: Policy) -> Action:
    if signature.is_generator(function):
        raise RegistrationError(f"{name}: a generator cannot be a handler: calling it runs none of it")
    try:
        parameters = signature.parameters(function)
        hints = typing.get_type_hints(signature.plain(function), include_extras=True)
    except RegistrationError as error:
        raise RegistrationError(f"{name}: {error}") from None
    except (NameError, TypeError, ValueError, AttributeError) as error:
        raise RegistrationError(f"{name}: its signature cannot be read: {error}") from None
    context_parameter: str | None = None
    fields: list[Any] = []
    for parameter, default in parameters.items():
        if parameter not in hints:
            hint = (
                "; register the method of an object: agent.action(thing.method)"
                if parameter == "self"
                else ""
            )
            raise RegistrationError(f"{name}: {parameter!r} has no type hint{hint}")
        kind = hints[parameter]
        if kind is Context:
            if context_parameter is not None:
                raise RegistrationError(f"{name}: one parameter of type Context is enough")
            context_parameter = parameter
        elif default is signature.REQUIRED:
            fields.append((parameter, kind))
        else:
            fields.append((parameter, kind, default))
    try:
        params = msgspec.defstruct(f"{name} params", fields, forbid_unknown_fields=True, kw_only=True)
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(params)
        params_schema = _schema(params)
    except (TypeError, ValueError) as error:
        raise RegistrationError(f"{name}: its params cannot be validated: {error}") from None
    description = ActionDescription(
        name=name,
        description=signature.clean(function.__doc__ or ""),
        params_schema=params_schema,
        result_schema=_result_schema(hints.get("return", Any)),
        policy=msgspec.to_builtins(policy),
    )
    is_async = signature.is_async(function)
    return Action(name, function, is_async, params, context_parameter, decoder, description, policy)


def _integral(value: Any) -> Any:
    """``value`` with each float that is an integer as an ``int``: to JSON Schema, 1.0 is one."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**63 else value
    if isinstance(value, dict):
        return {key: _integral(item) for key, item in value.items()}
    return [_integral(item) for item in value] if isinstance(value, list) else value


def _schema(kind: Any) -> dict[str, Any]:
    """JSON Schema of a type; a struct's own schema stands inline, not behind a ``$ref``."""
    schema = msgspec.json.schema(kind)
    definitions = schema.get("$defs", {})
    own = definitions.pop(schema.get("$ref", "").removeprefix("#/$defs/"), None)
    if own is not None:
        schema = {**own, **({"$defs": definitions} if definitions else {})}
        schema.pop("title", None)
    return schema


def _result_schema(kind: Any) -> dict[str, Any] | None:
    """JSON Schema of what is returned; ``None`` where the hint says too little or is no JSON type."""
    if kind in {Any, object}:
        return None
    try:
        return msgspec.json.schema(kind)
    except (TypeError, ValueError):
        return None
