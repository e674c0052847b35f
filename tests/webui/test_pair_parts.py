"""The panel's lists of LoRAs."""

from __future__ import annotations

import asyncio
import importlib

from ..hosts.driver import write_lora
from ..hosts.standins.a1111 import A1111
from ..hosts.standins.driver import running


def test_a_list_says_where_the_chosen_file_lies_if_others_have_its_name(tmp_path):
    with running(A1111, tmp_path) as host:
        for path in ("dog", "a/cat", "b/cat"):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            write_lora(tmp_path / f"{path}.safetensors", host.modules[:1], seed=1)
        host.networks.list_available_networks()
        tell = importlib.import_module("lib_nplora.webui.pair_parts")._tell_place("the subject")
        told = {name: asyncio.run(tell(name))["info"] for name in ("dog", "cat", "nobody", "")}
    assert told == {"dog": "the subject", "cat": "b/cat.safetensors", "nobody": "the subject", "": "the subject"}
