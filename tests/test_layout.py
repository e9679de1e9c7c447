"""The tree is as it should be: each core has its test module, each test module its reason."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "shared": "thingctl_protocol",
    "broker_plugin": "thingctl_broker",
    "device_agent": "thingctl_agent",
}
OF_MORE_THAN_ONE_MODULE = {"test_model.py", "test_recovery.py", "test_protocol_page.py"}


def pure_cores():
    """The modules that the import rules call the broker's pure cores, and the protocol's."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = rules["tool"]["importlinter"]["contracts"]
    cores = next(c["source_modules"] for c in contracts if c["name"] == "The broker's cores are pure")
    protocol = (ROOT / "shared" / "thingctl_protocol").glob("*.py")
    return [*cores, *(f"thingctl_protocol.{path.stem}" for path in protocol if path.stem != "__init__")]


@pytest.mark.parametrize("module", pure_cores())
def test_each_core_has_its_test_module(module):
    package, *folders, name = module.split(".")
    tests = ROOT / "tests" / package.removeprefix("thingctl_")
    assert (tests.joinpath(*folders) / f"test_{name}.py").is_file()


@pytest.mark.parametrize("folder", ["protocol", "broker"])
def test_each_test_module_is_named_for_a_module_that_is_there(folder):
    package = next(ROOT / root / name for root, name in PACKAGES.items() if name.endswith(folder))
    names = {path.name for path in (ROOT / "tests" / folder).glob("test_*.py")} - OF_MORE_THAN_ONE_MODULE
    assert names
    orphans = {name for name in names if not list(package.glob(f"{name[5:-3]}*"))}
    assert orphans == set()


@pytest.mark.parametrize(("root", "package"), PACKAGES.items())
def test_a_source_root_is_no_package_and_holds_one(root, package):
    assert not (ROOT / root / "__init__.py").exists()
    found = [path.name for path in (ROOT / root).iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert found == [package]
    assert (ROOT / root / package / "py.typed").is_file()
