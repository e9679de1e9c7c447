"""The part of inspect that registration needs says what inspect says."""

from __future__ import annotations

import functools
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_agent.handlers.signature import REQUIRED, clean, is_async, parameters, plain


def one(a: int, b: int = 2, *, c: int, d: int = 4) -> None: ...


def none() -> None: ...


class Thing:
    def method(self, a: int, b: int = 2) -> None: ...

    @classmethod
    def of_class(cls, a: int) -> None: ...

    @staticmethod
    def static(a: int) -> None: ...


@functools.wraps(one)
def wrapper(*args, **kwargs): ...


@pytest.mark.parametrize(
    "function",
    [one, none, Thing().method, Thing.of_class, Thing.static, Thing.method, wrapper, lambda x=1: x],
)
def test_parameters_are_those_of_inspect(function):
    expected = {
        name: REQUIRED if p.default is p.empty else p.default
        for name, p in inspect.signature(function).parameters.items()
    }
    assert parameters(function) == expected


@pytest.mark.parametrize("thing", [print, 5, Thing])
def test_what_is_no_python_function_is_refused(thing):
    with pytest.raises(TypeError):
        plain(thing)


async def coroutine() -> None: ...


class Asynchronous:
    async def method(self) -> None: ...


def test_coroutine_functions_are_told_apart():
    assert is_async(coroutine)
    assert is_async(Asynchronous().method)
    assert not is_async(one)
    assert not is_async(print)


@given(st.text("ab \n\t", max_size=60))
def test_docstrings_are_cleaned_as_inspect_does(text):
    assert clean(text).strip("\n ") == inspect.cleandoc(text).strip("\n ")
