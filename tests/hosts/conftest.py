"""The stand-ins, one after the other."""

from __future__ import annotations

import pytest

from .standins.a1111 import A1111
from .standins.driver import running
from .standins.forge import Forge, Neo
from .standins.ldm_patched import Classic, ReForge


@pytest.fixture(params=[A1111, Forge, Neo, ReForge, Classic])
def driver(request, tmp_path):
    with running(request.param, tmp_path) as host:
        yield host
