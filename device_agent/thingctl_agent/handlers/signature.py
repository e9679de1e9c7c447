"""What a function's signature says. The part of ``inspect`` that registration needs.

``inspect`` itself (with ast, dis and tokenize) is 1 MB, a twentieth of an idle agent.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Final

from thingctl_agent.errors import RegistrationError

if TYPE_CHECKING:
    from collections.abc import Callable

REQUIRED: Final = object()
"""In place of a default where there is none."""

_VAR_POSITIONAL: Final = 0x04
_VAR_KEYWORD: Final = 0x08
_GENERATOR: Final = 0x20
_COROUTINE: Final = 0x80
_ASYNC_GENERATOR: Final = 0x200


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """The names of the parameters with their defaults, or ``REQUIRED``.

    >>> parameters(lambda a, *, b=1: None) == {"a": REQUIRED, "b": 1}
    True

    Raises :class:`RegistrationError` for parameters that cannot be given by name, and
    :class:`TypeError` for what is no Python function or method.
    """
    plain_function = plain(function)
    code = plain_function.__code__
    if code.co_flags & (_VAR_POSITIONAL | _VAR_KEYWORD):
        raise RegistrationError("params have names: no *parameter and no **parameter")
    names = code.co_varnames[: code.co_argcount]
    defaults = plain_function.__defaults__ or ()
    found = dict.fromkeys(names, REQUIRED) | dict(
        zip(names[len(names) - len(defaults) :], defaults, strict=True)
    )
    bound = isinstance(function, types.MethodType)
    if code.co_posonlyargcount > bound:
        raise RegistrationError("params have names: no positional-only parameter")
    if bound:
        del found[names[0]]
    keyword_only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return found | dict.fromkeys(keyword_only, REQUIRED) | (plain_function.__kwdefaults__ or {})


def plain(function: Callable[..., Any]) -> types.FunctionType:
    """The function itself, out of a bound method; of a decorated one, the one it wraps."""
    while (wrapped := getattr(function, "__wrapped__", None)) is not None:
        function = wrapped
    if isinstance(function, types.MethodType):
        function = function.__func__
    if not isinstance(function, types.FunctionType):
        raise TypeError(f"{type(function).__name__} is neither a function nor a method")
    return function


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine."""
    return bool(_flags(function) & _COROUTINE)


def is_generator(function: Callable[..., Any]) -> bool:
    """Whether calling it runs nothing and gives a generator."""
    return bool(_flags(function) & (_GENERATOR | _ASYNC_GENERATOR))


def _flags(function: Callable[..., Any]) -> int:
    if isinstance(function, types.MethodType):
        function = function.__func__
    code = getattr(function, "__code__", None)
    return 0 if code is None else int(code.co_flags)


def clean(text: str) -> str:
    """A docstring without its indentation, as ``inspect.cleandoc`` gives it."""
    first, *others = text.expandtabs().split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in others if line.strip()), default=0)
    return "\n".join([first.lstrip(), *(line[margin:] for line in others)]).strip("\n")
