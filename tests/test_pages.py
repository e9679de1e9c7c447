"""The documentation holds together: links, anchors, blocks, pictures."""

import _ssl
import ast
import functools
import importlib.util
import re
from pathlib import Path

import pytest
from paho.mqtt import reasoncodes

from support.pages import (
    COMMANDS,
    ROOT,
    Block,
    Directive,
    PageError,
    anchors_of,
    blocks_of,
    directive_of,
    filled_in,
    indented_blocks,
    links_of,
    pages,
)
from thingctl_agent.runtime.config import load
from thingctl_broker.app.config import read_settings

TYPED = ("README.md", "docs/getting-started.md", "docs/agent.md", "docs/operations.md", "docs/console.md")
"""Pages whose blocks tests/system/test_documentation.py types."""

SOURCES = ("shared", "broker_plugin", "device_agent")
OBVIOUS = {"CANCELED", "INVALID_REQUEST", "EXIT_STATUS", "CANNOT_RUN", "REJECTED", "FAILED"}
"""Words beside reason codes in docs/agent.md, and codes that say all there is to say."""

ALL = [str(path.relative_to(ROOT)) for path in pages()]


def typed_pages():
    return [ROOT / name for name in TYPED]


# Links.


@pytest.mark.parametrize("name", ALL)
def test_every_link_of_a_page_leads_somewhere(name):
    page = ROOT / name
    lost = []
    for line, target in links_of(page):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        if not there.exists() or (anchor and anchor not in anchors_of(there)):
            lost.append(f"{name}:{line}: {target}")
    assert lost == []


def test_the_readme_leads_to_every_page():
    linked = {target.partition("#")[0] for _, target in links_of(ROOT / "README.md")}
    there = {name for name in ALL if re.fullmatch(r"docs/[^/]+\.md", name)}
    assert there - linked == set()


def test_anchors_are_made_as_github_makes_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# What *is* `kept`, and when?\n## [A](b.md) link\n## Same\n## Same\n```\n# no\n```\n")
    assert anchors_of(page) == {"what-is-kept-and-when", "a-link", "same", "same-1"}


# Blocks.


@pytest.mark.parametrize("name", TYPED)
def test_every_block_of_commands_is_run_or_says_why_not(name):
    for block in blocks_of(ROOT / name):
        assert block.language, f"{block.place}: which language?"
        if block.language in COMMANDS:
            filled_in(block, directive_of(block))


@pytest.mark.parametrize("name", TYPED)
def test_code_is_fenced_so_that_a_comment_can_say_what_to_do_with_it(name):
    assert indented_blocks(ROOT / name) == []


def test_a_block_without_a_directive_is_a_fault(tmp_path):
    with pytest.raises(PageError, match=r"page:3: say before the block"):
        directive_of(Block("page", 3, "sh", "true\n", ""))
    with pytest.raises(PageError, match=r"page:3: say before the block"):
        directive_of(Block("page", 3, "sh", "true\n", "not run:"))
    with pytest.raises(PageError, match="'sleeps: 3' is none of"):
        directive_of(Block("page", 3, "sh", "true\n", "run: op; sleeps: 3"))


def test_a_directive_says_who_types_what_and_what_comes_of_it():
    comment = (
        'run: pi; until: "connected"; prints: "a b"; prints: "c"; in place of: "tctl_…" : "$T"; file: a.py'
    )
    block = Block("page", 3, "sh", "x tctl_… y\n", comment)
    directive = directive_of(block)
    assert directive == Directive(
        "pi", "", "connected", prints=("a b", "c"), placeholders=(("tctl_…", "$T"),), file="a.py"
    )
    assert filled_in(block, directive) == "x $T y\n"
    with pytest.raises(PageError, match="there is no"):
        filled_in(block._replace(text="x\n"), directive)


def test_blocks_are_found_where_they_stand(tmp_path, monkeypatch):
    monkeypatch.setattr("support.pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- run: op -->\n```sh\nls\n```\n- b\n\n  ```text\n  c\n  ```\n\n    d\n    e\n")
    assert blocks_of(page) == [
        Block("page.md", 4, "sh", "ls\n", "run: op"),
        Block("page.md", 9, "text", "c\n", ""),
    ]
    assert indented_blocks(page) == [12]
    page.write_text("```sh\nls\n")
    with pytest.raises(PageError, match=r"page\.md:1: this block does not end"):
        blocks_of(page)


SETTINGS = {"broker": ("", read_settings), "agent": ('thing = "any"\n', lambda path: load(str(path), {}))}


@pytest.mark.parametrize("name", [*TYPED, "docs/http-api.md"])
def test_every_block_of_settings_is_taken_by_whose_settings_they_are(name, tmp_path):
    for block in blocks_of(ROOT / name):
        if block.language == "toml":
            whose = block.comment.removeprefix("settings: ")
            assert whose in SETTINGS, (
                f"{block.place}: say before the block <!-- settings: broker --> or agent"
            )
            before, read = SETTINGS[whose]
            file = tmp_path / "settings.toml"
            file.write_text(before + block.text, encoding="utf-8")
            read(file)


# Pictures.


def architecture():
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_architecture_is_what_its_source_draws():
    source = architecture()
    assert source.PICTURE.read_text(encoding="utf-8") == source.draw(), "run: python docs/architecture.py"


def test_the_texts_of_the_picture_fit_into_its_boxes():
    source = architecture()
    for box in source.BOXES:
        assert all(len(line) * source.CHARACTER <= box.width - 20 for line in box.lines), box
        assert 20 + source.LINE * len(box.lines) < box.height, box
        assert box.left + box.width <= source.WIDTH, box
        assert box.top + box.height <= source.HEIGHT, box


def test_the_picture_names_rooms_that_the_page_explains():
    source = architecture()
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    drawn = {box.title for box in source.BOXES} - source.OUTSIDE
    assert drawn - rooms == set()


# Troubleshooting.

TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"


def templates(tree):
    """Every text in a Python source, with … for what is filled in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@functools.cache
def texts_of_the_programs():
    sources = [path for name in SOURCES for path in (ROOT / name).rglob("*.py")]
    said = [text for path in sources for text in templates(ast.parse(path.read_text(encoding="utf-8")))]
    said += [path.read_text(encoding="utf-8") for path in (ROOT / "broker_plugin").rglob("*.js")]
    said += [Path(reasoncodes.__file__).read_text(encoding="utf-8"), " ".join(_ssl.err_names_to_codes)]
    return said


def quoted():
    """The texts of the tables' first columns, each with its line."""
    for number, line in enumerate(TROUBLESHOOTING.read_text(encoding="utf-8").splitlines(), 1):
        first = line.split(" | ")[0] if line.startswith("| ") else ""
        yield from ((number, text) for text in re.findall(r"`([^`]+)`", first))


@pytest.mark.parametrize(("line", "text"), list(quoted()))
def test_each_text_that_the_page_explains_is_one_that_a_program_says(line, text):
    if text.startswith(("thingctl", "journalctl")):
        return  # a command
    wanted = re.compile(".*".join(re.escape(part) for part in text.split("…")), re.DOTALL)
    assert any(wanted.search(said) for said in texts_of_the_programs()), f"troubleshooting.md:{line}"


def returned(path):
    """Every text that a function of a module returns, with … for what is filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Constant | ast.JoinedStr):
            yield next(templates(node.value))


def test_the_page_explains_every_reason_that_the_agent_gives_for_having_no_connection():
    reasons = [
        text
        for path in (ROOT / "device_agent").rglob("reasons.py")
        for text in returned(path)
        if "connect" in text or len(text) > 40
    ]
    assert len(reasons) > 15
    known = [re.compile(".*".join(re.escape(part) for part in text.split("…"))) for _, text in quoted()]
    assert [text for text in reasons if not any(pattern.search(text) for pattern in known)] == []


def test_the_page_explains_every_reason_code_of_the_agent_and_the_broker():
    page = TROUBLESHOOTING.read_text(encoding="utf-8")
    agent = ROOT / "docs" / "agent.md"
    codes = set(
        re.findall(
            r"`([A-Z][A-Z_]+)`",
            agent.read_text(encoding="utf-8").split("| reason code |")[1].split("\n\n")[0],
        )
    )
    codes |= {"NOT_DELIVERED", "NOT_ACKNOWLEDGED", "NO_RESPONSE", "NO_VERDICT"}
    assert {code for code in codes if f"`{code}`" not in page} - OBVIOUS == set()
