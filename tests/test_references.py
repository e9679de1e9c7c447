"""Every role in a docstring points to something."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOTS = ("shared", "broker_plugin", "device_agent")
ROLE = re.compile(r":(?:class|func|meth|exc|data|attr|mod):`~?([\w.]+)`")
PATHS = sorted(path for root in ROOTS for path in (ROOT / root).rglob("*.py"))


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def docstrings(path):
    """Each with the name of the class it is in, if any."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield None, ast.get_docstring(tree) or ""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name, ast.get_docstring(node) or ""
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield node.name, ast.get_docstring(inner) or ""
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield None, ast.get_docstring(node) or ""


def names_in(path):
    """What a module defines at its top, and the attributes of its classes."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (inner.name for inner in node.body if hasattr(inner, "name"))


OWN = {path: set(names_in(path)) for path in PATHS}
EVERYWHERE = {
    node.name
    for path in PATHS
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.ClassDef)
}
"""Classes: their names mean one thing in the whole project (test_layout)."""


def resolves(name, path, cls):
    if name in OWN[path] or name in EVERYWHERE:
        return True
    module = module_of(path)
    candidates = [name, f"{module}.{name}"] + ([f"{module}.{cls}.{name}"] if cls else [])
    candidates += [f"builtins.{name}", f"asyncio.{name}"]
    return any(found(candidate) for candidate in candidates)


def found(dotted):
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            place = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            annotated = part in getattr(place, "__annotations__", {}) or part in getattr(
                place, "__slots__", ()
            )
            if not hasattr(place, part) and not annotated:
                return False
            place = getattr(place, part, None)
        return True
    return False


@pytest.mark.parametrize("path", PATHS, ids=module_of)
def test_every_role_points_to_something(path):
    dead = [
        name for cls, text in docstrings(path) for name in ROLE.findall(text) if not resolves(name, path, cls)
    ]
    assert dead == []
