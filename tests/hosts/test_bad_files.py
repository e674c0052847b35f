"""Bad files by the prompt: each ends in a comment under the picture, which comes out as without the tag.

A host reads a file before it matters which role it has, so as a style every fourth is tried (tests/files has all of
them in both roles), and so it is in Neo, which reads by the code that Forge does.
"""

from __future__ import annotations

import pytest

from lib_nplora.hosts import detect_host

from .standins.a1111 import A1111
from .standins.driver import running
from .standins.forge import Forge, Neo
from .standins.ldm_patched import Classic, ReForge

pytestmark = pytest.mark.timeout(120)

AS_CONTENT, AS_STYLE = "<nplora:{}:good:1>", "<nplora:good:{}:1>"


@pytest.fixture(scope="module", params=[A1111, Forge, Neo, ReForge, Classic])
def host(request, bad_files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("loras")
    named = [file for file in bad_files.files if file.fits_a_tag and file.path.suffix == ".safetensors"]
    files = bad_files.linked(named, folder)
    with running(request.param, folder) as driver:
        yield driver, files


@pytest.mark.parametrize("tag", [AS_CONTENT, AS_STYLE], ids=["content", "style"])
def test_every_bad_file_ends_in_a_comment(host, bad_files, tag):
    """Odd ones may be fused, and so may what the host itself takes for a sound LoRA, to the last module."""
    driver, files = host
    assert len(files) > 200
    if tag == AS_STYLE or isinstance(driver, Neo):
        files = files[::4]
    plain = driver.generate("a cat").pixels
    fused = 0
    for file in files:
        picture = driver.generate(f"a cat {tag.format(file.path.stem)}")
        said = " ".join(picture.comments)
        if not (said or file.row.fine or file.row.either):
            found = detect_host()
            assert not found.model.load(found.shelf.resolve(file.path.stem)).unmatched, file.row.name
            fused += 1
        assert "details are in the console" not in said, (file.row.name, said)
        assert len(said) < 2000, file.row.name
        if picture.pixels != plain:
            assert not said or file.row.fine or file.row.either, file.row.name
            assert driver.generate("a cat").pixels == plain, file.row.name
    assert driver.generate("a cat").pixels == plain
    assert fused < 25
    assert not bad_files.code_was_run
