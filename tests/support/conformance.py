"""Which normative statement of MQTT 3.1.1 and 5 is shown by which test: the page docs/mqtt-conformance.md.

python tests/support/conformance.py    # writes the page

What the statements say stands in tests/broker/mqtt/statements.toml. Tests name theirs with
``@pytest.mark.conforms("MQTT-3.1.0-1", …)``, and are read here without being run.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "mqtt-conformance.md"
STATEMENTS = ROOT / "tests" / "broker" / "mqtt" / "statements.toml"
STANDARDS = {
    "MQTT-": ("MQTT 3.1.1", "https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html"),
    "MQTT5-": ("MQTT 5", "https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html"),
}
HEAD = """\
# Conformance to MQTT

Every normative statement of MQTT 3.1.1 and of MQTT 5 that concerns a server, by its number in appendix B of the
standard, what it asks in our own words, and the tests that show it, or why there is none. Statements that concern
a client alone are left out. Numbers of MQTT 5 begin with `MQTT5`, here and in the broker's errors.

`python tests/support/conformance.py` writes this page from the tests' marks and `tests/broker/mqtt/statements.toml`.
"""


class Shown(NamedTuple):
    """A test that shows a statement. ``path``: from the root of the project."""

    path: str
    test: str


class Statements(NamedTuple):
    """What the statements say, and why some have no test, by number."""

    says: dict[str, str]
    untested: dict[str, str]


def read_statements() -> Statements:
    """Read the data."""
    data = tomllib.loads(STATEMENTS.read_text(encoding="utf-8"))
    return Statements(data["says"], data["untested"])


def marks_of(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each statement that a module's tests name, and the test."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in (node for decorator in function.decorator_list for node in ast.walk(decorator)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.conforms":
                yield from ((ast.literal_eval(argument), function.name) for argument in node.args)


def collect() -> dict[str, list[Shown]]:
    """The tests of every statement that is named in tests/."""
    shown: dict[str, list[Shown]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        if "mark.conforms" in source:
            for number, test in marks_of(ast.parse(source)):
                shown.setdefault(number, []).append(Shown(str(path.relative_to(ROOT)), test))
    return shown


def _row(number: str, statements: Statements, shown: dict[str, list[Shown]]) -> str:
    tests = ", ".join(f"[{test.removeprefix('test_')}](../{path})" for path, test in shown.get(number, []))
    return f"| {number} | {statements.says[number]} | {tests or statements.untested.get(number, '')} |"


def write(statements: Statements, shown: dict[str, list[Shown]]) -> str:
    """The page."""
    parts = [HEAD]
    for prefix, (name, address) in STANDARDS.items():
        numbers = [number for number in statements.says if number.startswith(prefix)]
        tested = sum(number in shown for number in numbers)
        parts += [
            f"\n## {name}\n",
            f"[The standard]({address}). {len(numbers)} statements, {tested} with a test.\n",
            "| number | what it asks | tests, or why not |\n|---|---|---|",
            *(_row(number, statements, shown) for number in numbers),
        ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(write(read_statements(), collect()), encoding="utf-8")
