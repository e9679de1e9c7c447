"""As much of HOCON as our files for EMQX are written in: objects, arrays, strings, words, include."""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(r'\s*(?:#[^\n]*\n?)?(?:("(?:[^"\\]|\\.)*")|([{}\[\],=])|([^\s{}\[\],="#]+))?')


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None
        assert match.end() > at, f"not HOCON as we write it: {text[at : at + 40]!r}"
        at = match.end()
        found += [part for part in match.groups() if part is not None]
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.includes: list[str] = []

    def take(self) -> str:
        return self.tokens.pop(0)

    def value(self) -> Any:
        first = self.take()
        if first == "{":
            return self.fields("}")
        if first == "[":
            return self.items()
        if first.startswith('"'):
            return first[1:-1]
        return {"true": True, "false": False}.get(first, int(first) if first.isdigit() else first)

    def fields(self, end: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.tokens and self.tokens[0] != end:
            name = self.take().strip('"')
            if name == ",":
                continue
            if name == "include":
                self.includes.append(self.take().strip('"'))
                continue
            if self.tokens[0] == "=":
                self.take()
            else:
                assert self.tokens[0] == "{", f"{name} has no value"
            inner, *rest = reversed([name] if self.tokens[0] != "{" and "." not in name else name.split("."))
            value: Any = self.value()
            for outer in (inner, *rest):
                value = {outer: value}
            _merge(found, value)
        if end:
            assert self.take() == end
        return found

    def items(self) -> list[Any]:
        found = []
        while self.tokens[0] != "]":
            if self.tokens[0] == ",":
                self.take()
            else:
                found.append(self.value())
        self.take()
        return found


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


def read_hocon(text: str) -> tuple[dict[str, Any], list[str]]:
    """The settings, and what the file includes."""
    reader = _Reader(text)
    return reader.fields(), reader.includes


def filled_in(template: dict[str, str], client: dict[str, str]) -> dict[str, str]:
    """A body as EMQX fills it in: ``${name}`` is what the client has."""
    return {
        name: re.sub(r"\$\{(\w+)\}", lambda found: client[found[1]], value)
        for name, value in template.items()
    }
