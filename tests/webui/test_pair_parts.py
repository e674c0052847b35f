"""The panel's lists of LoRAs."""

from __future__ import annotations

import asyncio
import importlib

from ..hosts.driver import write_lora
from ..hosts.standins.a1111 import A1111
from ..hosts.standins.driver import running
from ..hosts.standins.page import Component


def test_a_list_says_where_the_chosen_file_lies_if_others_have_its_name(tmp_path):
    with running(A1111, tmp_path) as host:
        for path in ("dog", "a/cat", "b/cat"):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            write_lora(tmp_path / f"{path}.safetensors", host.modules[:1], seed=1)
        host.networks.list_available_networks()
        pair_parts = importlib.import_module("lib_nplora.webui.pair_parts")
        tell = pair_parts._tell_place("the subject")
        told = {name: asyncio.run(tell(name))["info"] for name in ("dog", "cat", "nobody", "")}
        both = [update["info"] for update in asyncio.run(pair_parts._tell_places("cat", "dog"))]
        host.page.words["the subject"] = "das Motiv"
        assert asyncio.run(tell("dog"))["info"] == "das Motiv"
    assert told == {"dog": "the subject", "cat": "b/cat.safetensors", "nobody": "the subject", "": "the subject"}
    assert both == ["b/cat.safetensors", "the look"]


def test_what_a_host_restores_is_seen_when_the_page_is_loaded(tmp_path):
    with running(A1111, tmp_path):
        lists = {one.elem_id: one for one in Component.made}
        restored = lists["txt2img_nplora_restored"].value
        assert restored() == ""
        lists["txt2img_nplora_style"].value = "cat"
        assert restored() == "cat"
