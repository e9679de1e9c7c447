"""Files are where their paths say, or somebody is told."""

import os

import pytest

from thingctl_broker.system.files import FileIdentity, FileReplaced


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data" / "file"
    path.parent.mkdir()
    path.write_text("x")
    return path


def test_a_file_that_changes_is_still_the_same(file):
    placed = FileIdentity(file)
    file.write_text("y" * 10_000)
    os.truncate(file, 0)
    file.chmod(0o400)
    placed.check()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda file: file.unlink(), "removed or moved"),
        (lambda file: file.parent.rename(file.parent.with_name("other")), "removed or moved"),
        (lambda file: (file.rename(f"{file}.old"), file.write_text("x")), "replaced"),
    ],
)
def test_a_file_that_is_gone_or_another_is_missed(file, harm, words):
    other = file.with_name("other")
    other.write_text("x")
    placed = FileIdentity(other, file)
    placed.check()  # one file at a time: it is this one's turn
    harm(file)
    with pytest.raises(FileReplaced, match=words):
        placed.check()
    for _ in range(3):  # and no more of that: the good one must not hide the other
        with pytest.raises(FileReplaced, match=words):
            placed.check()


def test_what_comes_back_is_found(file):
    other = file.with_name("other")
    other.write_text("x")
    placed = FileIdentity(other, file)
    file.parent.rename(elsewhere := file.parent.with_name("elsewhere"))
    with pytest.raises(FileReplaced):
        placed.check()
    elsewhere.rename(file.parent)
    for _ in range(4):
        placed.check()


def test_what_was_never_there_is_told_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileIdentity(tmp_path / "nothing")
