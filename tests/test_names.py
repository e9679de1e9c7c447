"""A bare verb that many classes share says nothing: past three of them, a method's name has its object too."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("broker_plugin/thingctl_broker", "device_agent/thingctl_agent", "shared/thingctl_protocol")
SHARED_MAX = 3
LIFE_CYCLE = {"start", "stop", "close"}
"""What everything that lives has; their object is the thing itself."""

TOO_COMMON = {
    "add": 20,
    "cancel": 14,
    "routes": 14,
    "take": 14,
    "get": 13,
    "show": 11,
    "acknowledged": 10,
    "put": 10,
    "send": 10,
    "write": 9,
    "list": 9,
    "remove": 9,
    "ended": 8,
    "release": 8,
    "restore": 8,
    "wait": 8,
    "load": 7,
    "open": 7,
    "changed": 6,
    "connected": 6,
    "publish": 6,
    "run": 6,
    "check": 5,
    "disconnected": 5,
    "drop": 5,
    "end": 5,
    "expire": 5,
    "failed": 5,
    "forget": 5,
    "minutes": 5,
    "note": 5,
    "refuse": 5,
    "resume": 5,
    "subscribe": 5,
    "thing": 4,
    "action": 4,
    "admits": 4,
    "answer": 4,
    "begin": 4,
    "offer": 4,
    "respond": 4,
    "select": 4,
    "text": 4,
    "unix": 4,
    "watch": 4,
}
"""Names that more classes share still, and how many. A change that renames some lowers the number."""


def methods(node: ast.ClassDef) -> set[str]:
    """Public methods of a class, without its properties."""
    return {
        item.name
        for item in node.body
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
        and not item.name.startswith("_")
        and not any("property" in ast.dump(decorator) for decorator in item.decorator_list)
    }


def read_classes() -> tuple[dict[str, set[str]], dict[str, tuple[set[str], list[str]]]]:
    """Protocols by name with their methods; other classes with their methods and the names of their bases."""
    ports: dict[str, set[str]] = {}
    classes: dict[str, tuple[set[str], list[str]]] = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.ClassDef):
                    continue
                bases = [getattr(base, "id", getattr(base, "attr", "")) for base in node.bases]
                if "Protocol" in bases:
                    ports[node.name] = methods(node)
                else:
                    classes[f"{file.parent.name}.{node.name}"] = (methods(node), bases)
    return ports, classes


def users() -> dict[str, set[str]]:
    """Who has a method of a bare name. A port and all that implement it count once, a base and its heirs too."""
    ports, classes = read_classes()
    own = {name.rpartition(".")[2]: found for name, (found, _) in classes.items()}
    shared = defaultdict(set)
    for name, (found, bases) in classes.items():
        for method in found:
            if "_" in method or method in LIFE_CYCLE:
                continue
            family = [port for port, asked in ports.items() if method in asked and asked <= found]
            family += [base for base in bases if method in own.get(base, ())]
            shared[method].add(family[0] if family else name)
    return {method: who for method, who in shared.items() if len(who) > SHARED_MAX}


def test_a_verb_that_many_share_says_its_object():
    found = users()
    worse = {name: sorted(who) for name, who in found.items() if len(who) > TOO_COMMON.get(name, SHARED_MAX)}
    assert not worse, "say the object too: send_command, pop_due, record_answer"


def test_a_name_that_is_no_longer_common_leaves_the_list():
    found = users()
    assert not [name for name in TOO_COMMON if name not in found]
