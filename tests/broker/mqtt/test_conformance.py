"""docs/mqtt-conformance.md: each normative statement has a test, or a reason, and the page says so."""

import ast
import re
from pathlib import Path

import pytest

from support import conformance

MARK = '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.conforms("A-1", "A-2"))])\n'
SOURCES = ("broker_plugin", "shared")
NUMBER = re.compile(r"MQTT5?-\d+(?:\.\d+)+-\d+")
OF_CLIENTS = {
    "MQTT-6.0.0-3": "what a client asks for over WebSocket",
    "MQTT5-4.12.0-7": "an AUTH of a client that named no method",
    "MQTT5-4.6.0-2": "a worker of a cluster is a client",
}
"""Rules for clients alone that the code names, and why."""


@pytest.fixture(scope="module")
def statements():
    return conformance.read_statements()


@pytest.fixture(scope="module")
def shown():
    return conformance.collect()


def test_each_statement_has_a_test_or_a_reason_and_not_both(statements, shown):
    without = statements.says.keys() - shown.keys() - statements.untested.keys()
    assert sorted(without) == []
    assert sorted(statements.untested.keys() & shown.keys()) == []


def test_tests_and_reasons_are_of_statements_that_there_are(statements, shown):
    assert sorted((shown.keys() | statements.untested.keys()) - statements.says.keys()) == []


def test_a_test_names_a_statement_once(shown):
    assert [number for number, tests in shown.items() if len(set(tests)) < len(tests)] == []


def test_each_rule_that_the_code_names_is_one_of_them(statements):
    named = {
        number
        for name in SOURCES
        for path in (conformance.ROOT / name).rglob("*.py")
        for number in NUMBER.findall(Path(path).read_text(encoding="utf-8"))
    }
    assert sorted(named - statements.says.keys() - OF_CLIENTS.keys()) == []


def test_numbers_are_in_the_order_of_the_standards(statements):
    for prefix in conformance.STANDARDS:
        numbers = [
            [int(part) for part in re.split(r"[.-]", number.removeprefix(prefix))]
            for number in statements.says
            if number.startswith(prefix)
        ]
        assert len(numbers) > 90
        assert numbers == sorted(numbers)


def test_the_page_is_up_to_date(statements, shown):
    page = conformance.PAGE.read_text(encoding="utf-8")
    assert page == conformance.write(statements, shown), "run: python tests/support/conformance.py"


def test_marks_are_found_on_tests_and_on_their_parameters():
    source = MARK + '@pytest.mark.conforms("B-1")\nasync def test_it(x): ...\n\n\ndef test_other(): ...\n'
    assert sorted(conformance.marks_of(ast.parse(source))) == [
        ("A-1", "test_it"),
        ("A-2", "test_it"),
        ("B-1", "test_it"),
    ]
