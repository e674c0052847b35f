"""The contract suite in real hosts."""

from __future__ import annotations

import pytest

from ..hosts.contract import HostContract, Loras
from ..reference.kohya import fused
from .driver import KINDS, Setup, running


@pytest.fixture(scope="class")
def driver(request, tmp_path_factory):
    with running(request.param, tmp_path_factory.mktemp(request.param)) as host:
        yield host


@pytest.mark.parametrize("driver", list(KINDS), indirect=True)
class TestRealHosts(HostContract):
    """See HostContract."""


@pytest.mark.parametrize("name", list(KINDS))
def test_the_api_without_the_ui(name, tmp_path):
    with running(name, tmp_path, Setup(webui=False)) as host:
        loras = Loras(host)
        host.generate("a cat <nplora:dog:vangogh:0.5>")
        assert host.compare(fused(loras.dog, loras.vangogh, 0.5)).worst < 1e-4


@pytest.mark.parametrize("name", list(KINDS))
def test_bad_files_by_the_tag(name, bad_files, tmp_path):
    """Every pickle of the corpus, and every twentieth of the rest: a comment, no code run, and the host lives on."""
    chosen = [
        file
        for i, file in enumerate(bad_files.files)
        if file.fits_a_tag and (file.path.suffix in (".pt", ".ckpt") or i % 20 == 0)
    ]
    with running(name, tmp_path, Setup(webui=False)) as host:
        files = bad_files.linked(chosen, host.lora_dir)
        Loras(host)
        plain = host.generate("a cat").pixels
        for file in files:
            picture = host.generate(f"a cat <nplora:{file.path.stem}:vangogh:1>")
            said = " ".join(picture.comments)
            print(f"{file.row.name}: {said[:300]}")
            assert said, file.row.name
            assert "details are in the console" not in said
        assert host.generate("a cat").pixels == plain
        assert len(files) > 20
        assert not bad_files.code_was_run
