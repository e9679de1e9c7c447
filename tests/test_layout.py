"""The tree is as it should be: a test module per module, no package where there must be none."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "shared/thingctl_protocol": "tests/protocol",
    "broker_plugin/thingctl_broker": "tests/broker",
    "device_agent/thingctl_agent": "tests/agent",
}
WITHOUT_BEHAVIOUR = {"__init__", "__main__", "ports"}
"""Modules that hold words and shapes alone."""
TESTED_ELSEWHERE = {"thingctl_broker.errors": "tests/broker/test_service.py"}
"""What another module's test covers whole."""


def modules():
    """Every module that holds behaviour, with the tests' folder of its package."""
    for package, tests in PACKAGES.items():
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.stem not in WITHOUT_BEHAVIOUR:
                yield pytest.param(path, ROOT / tests, id=dotted(path))


def dotted(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[1:])


@pytest.mark.parametrize(("path", "tests"), list(modules()))
def test_each_module_has_its_test_module(path, tests):
    if dotted(path) in TESTED_ELSEWHERE:
        assert (ROOT / TESTED_ELSEWHERE[dotted(path)]).is_file()
        return
    # A module may be tested under its own name or, in a subpackage, under the subpackage's.
    names = {f"test_{path.stem.removeprefix('routes_')}.py"}
    names |= {f"test_{parent}.py" for parent in path.relative_to(ROOT).parts[2:-1]}
    found = {test.name for test in tests.rglob("test_*.py")}
    assert names & found, f"none of {sorted(names)} under {tests.relative_to(ROOT)}"


@pytest.mark.parametrize("folder", ["shared", "broker_plugin", "device_agent"])
def test_a_source_root_is_no_package_and_holds_one(folder):
    assert not (ROOT / folder / "__init__.py").exists()
    packages = [path for path in (ROOT / folder).iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert [f"{folder}/{path.name}" for path in packages] == [p for p in PACKAGES if p.startswith(folder)]
    assert (packages[0] / "py.typed").is_file()
