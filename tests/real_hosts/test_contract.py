"""The contract suite in real hosts."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ..files import corpus
from ..hosts.contract import HostContract, Loras
from ..hosts.driver import fused
from .driver import KINDS, running


@pytest.fixture(scope="class")
def driver(request, tmp_path_factory):
    with running(request.param, tmp_path_factory.mktemp(request.param)) as host:
        yield host


@pytest.mark.parametrize("driver", list(KINDS), indirect=True)
class TestRealHosts(HostContract):
    """See HostContract."""


@pytest.mark.parametrize("name", list(KINDS))
def test_the_api_without_the_ui(name, tmp_path):
    with running(name, tmp_path, webui=False) as host:
        loras = Loras(host)
        host.generate("a cat <nplora:dog:vangogh:0.5>")
        assert host.compare(fused(loras.dog, loras.vangogh, 0.5)).worst < 1e-4


@pytest.mark.parametrize("name", list(KINDS))
def test_bad_files_by_the_tag(name, tmp_path):
    """Every pickle of the corpus, and every twentieth of the rest: a comment, no code run, and the host lives on."""
    (tmp_path / "corpus").mkdir()
    with running(name, tmp_path, webui=False) as host:
        files = []
        for i, file in enumerate(corpus.generate(tmp_path / "corpus")):
            is_small = file.path.is_file() and file.path.stat().st_size < 2**20
            is_pickle = file.path.suffix in (".pt", ".ckpt")
            if is_small and (is_pickle or i % 20 == 0) and re.fullmatch(r"[^:<>]+", file.path.name):
                files.append(replace(file, path=file.path.rename(host.lora_dir / file.path.name)))
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
        assert not (tmp_path / "corpus" / corpus.MARKER).exists()
