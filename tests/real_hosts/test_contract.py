"""The contract suite in real hosts.

NPLORA_A1111_DIR, NPLORA_FORGE_DIR, NPLORA_NEO_DIR name the hosts' folders, NPLORA_CHECKPOINT a Stable Diffusion 1.5
checkpoint (random weights will do), NPLORA_CHECKPOINT_2 another one. One host at a time needs up to 10 GB of memory.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ..hosts.contract import HostContract
from .driver import KINDS, RealHost


@pytest.fixture(scope="class")
def driver(request, tmp_path_factory):
    kind = KINDS[request.param]
    checkpoint = os.environ.get("NPLORA_CHECKPOINT")
    if kind.folder is None or not checkpoint:
        pytest.skip(f"{kind.variable} and NPLORA_CHECKPOINT are not set: no real {request.param} here")
    checkpoints = [Path(checkpoint), Path(os.environ.get("NPLORA_CHECKPOINT_2", checkpoint))]
    host = RealHost(kind, checkpoints[: len(set(checkpoints))], tmp_path_factory.mktemp(request.param))
    yield host
    host.stop()


@pytest.mark.parametrize("driver", list(KINDS), indirect=True)
class TestRealHosts(HostContract):
    """See HostContract."""
