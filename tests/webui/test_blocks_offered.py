"""The blocks that the panel's choosers list."""

from __future__ import annotations

import pytest

from lib_nplora.webui import running

from ..hosts.standins import driver
from ..hosts.standins.a1111 import A1111
from ..hosts.standins.forge import Forge


@pytest.mark.parametrize("kind", [A1111, Forge])
def test_those_of_the_loaded_model(kind, tmp_path):
    with driver.running(kind, tmp_path):
        assert [str(block) for block in running.blocks()] == ["te1", "in1", "in4", "mid"]


@pytest.mark.parametrize("kind", [A1111, Forge])
def test_none_while_no_model_is_loaded_and_none_is_loaded_for_it(kind, tmp_path, monkeypatch):
    with driver.running(kind, tmp_path) as host:
        monkeypatch.setattr(host.model_data, "sd_model", None)
        assert running.blocks() == ()
        from lib_nplora.webui.by_block_line import USUAL, choices, offered

        assert offered() == choices(USUAL)
        assert offered()[:7] == ["", "te", "in", "mid", "double", "single", "out"]
        assert {"out11", "double18", "single37", "te3"} <= set(offered())
