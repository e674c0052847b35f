"""The contract suite in real hosts.

NPLORA_A1111_DIR, NPLORA_FORGE_DIR, NPLORA_NEO_DIR name the hosts' folders, NPLORA_CHECKPOINT a Stable Diffusion 1.5
checkpoint (random weights will do), NPLORA_CHECKPOINT_2 a different one. A host needs up to 10 GB of memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..hosts.contract import HostContract, Loras
from ..hosts.driver import fused
from .driver import KINDS, RealHost


@contextmanager
def running(name: str, data: Path, *, webui: bool = True) -> Iterator[RealHost]:
    """The host for as long as it is needed; skips the test where there is none."""
    kind = KINDS[name]
    checkpoints = [Path(os.environ[x]) for x in ("NPLORA_CHECKPOINT", "NPLORA_CHECKPOINT_2") if x in os.environ]
    if kind.folder is None or len(checkpoints) < 2:
        pytest.skip(f"{kind.variable}, NPLORA_CHECKPOINT and NPLORA_CHECKPOINT_2 are not set: no real {name} here")
    host = RealHost(kind, checkpoints, data, webui=webui)
    try:
        yield host
    finally:
        host.stop()


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
