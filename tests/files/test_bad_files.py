"""Every bad file ends in one clear line that names it, and leaves nothing behind."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from lib_nplora.command_line.main import main
from lib_nplora.errors import FileError
from lib_nplora.files import read_lora
from tests.files import corpus
from tests.files.corpus import BadFile, Corpus

pytestmark = pytest.mark.timeout(20)

ROWS = corpus.rows(Path("nowhere"))
BAD = [row.name for row in ROWS if not (row.fine or row.either)]
UNREADABLE = [row.name for row in ROWS if not (row.fine or row.either or row.reads)]
ODD = [row.name for row in ROWS if row.fine]
HOLDS_THE_LAYER = ("a unet of diffusers", "a controlnet of diffusers", "ia3 with weight of shape (8, 8)")
NO_MODEL = [row.name for row in ROWS if row.name not in HOLDS_THE_LAYER]
EITHER = [row.name for row in ROWS if row.either]

_NOTHING = "the {role} changes nothing: its alpha is 0, or all its values are"
SAID = {
    "every alpha 0": _NOTHING,
    "zeros only": _NOTHING,
    **dict.fromkeys(
        (
            *("50000 alpha patterns", "an alpha pattern of one million letters"),
            *("settings with unknown words", "settings with patterns null"),
        ),
        r"holds its scale \(2\) beside its tensors alone",
    ),
    "a lora with a bundled inversion": "not everything could be fused: .*\n.*: 1 of the modules in "
    "'a-lora-with-a-bundled-inversion.safetensors' fit no layer",
}
"""What is said of files that are only odd, a line each, as a pattern."""


@pytest.fixture(scope="module")
def files(bad_files: Corpus) -> dict[str, BadFile]:
    return {file.row.name: file for file in bad_files.files}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.safetensors"


def fuse(file: BadFile, role: str, out: Path) -> int:
    pair = [str(file.path), str(file.path.with_name(corpus.PARTNER))]
    return main(["fuse", *(pair if role == "content" else pair[::-1]), "-o", str(out), "--full"])


def test_there_are_many() -> None:
    assert len(BAD) >= 200
    assert len(ODD) >= 30


@pytest.mark.parametrize("name", UNREADABLE)
def test_reading_it_raises_an_error_for_users(bad_files: Corpus, files: dict[str, BadFile], name: str) -> None:
    file = files[name]
    with pytest.raises(FileError) as caught:
        dict(read_lora(file.path).weights.deltas)
    assert file.slug in str(caught.value) or file.path.name in str(caught.value)
    assert not bad_files.code_was_run


@pytest.mark.parametrize("role", ["content", "style"])
@pytest.mark.parametrize("name", BAD)
def test_the_command_line_says_so_in_one_line(
    bad_files: Corpus, files: dict[str, BadFile], out: Path, capsys: pytest.CaptureFixture[str], name: str, role: str
) -> None:
    before = sorted(os.listdir(bad_files.folder))
    assert fuse(files[name], role, out) == 2
    assert_refused(files[name], out, *capsys.readouterr())
    assert sorted(os.listdir(bad_files.folder)) == before


@pytest.mark.parametrize("role", ["content", "style"])
@pytest.mark.parametrize("name", ODD)
def test_what_is_only_odd_is_fused(
    files: dict[str, BadFile], out: Path, capsys: pytest.CaptureFixture[str], name: str, role: str
) -> None:
    assert fuse(files[name], role, out) == 0
    assert_fused(out, *capsys.readouterr(), said=SAID.get(name, "").format(role=role))


@pytest.mark.parametrize("name", EITHER)
def test_what_takes_for_ever_is_decided_at_once(
    files: dict[str, BadFile], out: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    if fuse(files[name], "content", out) == 0:
        assert_fused(out, *capsys.readouterr())
    else:
        assert_refused(files[name], out, *capsys.readouterr())


@pytest.mark.parametrize("name", NO_MODEL)
def test_as_a_checkpoint_it_is_refused(
    files: dict[str, BadFile], out: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (dora,) = (file for file in files.values() if file.slug.startswith("one-layer-a-dora"))
    pair = [str(dora.path), str(dora.path.with_name(corpus.PARTNER))]
    assert main(["fuse", *pair, "-o", str(out), "--full", "--base", str(files[name].path)]) == 2
    assert_refused(files[name], out, *capsys.readouterr())


def assert_refused(file: BadFile, out: Path, printed: str, err: str) -> None:
    """One line for people about this file, and nothing else."""
    line = err.removesuffix("\n")
    assert printed == ""
    assert line.startswith("nplora: ")
    assert line.isprintable(), "letters that could write over the terminal"
    assert len(line) < 1100
    assert "Traceback" not in line
    assert file.slug in line or file.path.name in line or (file.row.reads and "layer " in line)
    assert os.listdir(out.parent) == []
    assert not (file.path.parent / corpus.MARKER).exists()


def assert_fused(out: Path, printed: str, err: str, said: str = "") -> None:
    """A sound file, with no value in it that is not finite, and the warnings that are due."""
    if said:
        assert all(line.startswith("nplora: warning: ") for line in err.splitlines())
        assert re.fullmatch(f".*{said}.*\n", err)
    else:
        assert err == ""
    assert " fused" in printed
    assert all(delta.is_finite for delta in read_lora(out).weights.deltas.values())
    assert os.listdir(out.parent) == [out.name]
