"""The contract suite on stand-ins."""

from __future__ import annotations

import pytest

from .contract import HostContract
from .standins.a1111 import A1111
from .standins.driver import running
from .standins.forge import Forge, Neo
from .standins.ldm_patched import Classic, ReForge


@pytest.fixture(scope="class")
def driver(request, tmp_path_factory):
    with running(request.param, tmp_path_factory.mktemp("loras")) as host:
        yield host


@pytest.mark.parametrize("driver", [A1111, Forge, Neo, ReForge, Classic], indirect=True)
class TestStandIns(HostContract):
    """See HostContract."""
