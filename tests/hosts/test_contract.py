"""The contract suite on stand-ins."""

from __future__ import annotations

import pytest

from .contract import HostContract
from .standins.a1111 import A1111
from .standins.forge import Forge, Neo


@pytest.fixture(scope="class")
def driver(request, tmp_path_factory):
    host = request.param(tmp_path_factory.mktemp("loras"))
    host.start()
    yield host
    host.stop()


@pytest.mark.parametrize("driver", [A1111, Forge, Neo], indirect=True)
class TestStandIns(HostContract):
    """See HostContract."""
