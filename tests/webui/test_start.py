"""What a host finds of us after its start, after a reload of its page, and when its settings change."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest
from fastapi import FastAPI

from lib_nplora.webui import allowance
from lib_nplora.webui.fields import fields

from ..hosts.contract import Loras
from ..hosts.standins.a1111 import A1111
from ..hosts.standins.driver import running
from ..hosts.standins.forge import Forge
from ..hosts.standins.page import Script

GIB = 2**30


@pytest.fixture(params=[A1111, Forge])
def host(request, tmp_path):
    with running(request.param, tmp_path) as host:
        yield host


def reload(host) -> None:
    host.unload_scripts()
    host.run_scripts()


def axes(host) -> list[str]:
    return [option.label for option in host.plot.axis_options if option.label.startswith("[NP-LoRA] ")]


def test_a_reload_leaves_one_of_each(host):
    before = axes(host)
    for _ in range(2):
        reload(host)
    assert axes(host) == before
    assert len(before) == 16
    assert [type(script).__name__ for script in host.page.alwayson] == ["NploraScript"]


def test_an_unload_leaves_nothing(host):
    host.unload_scripts()
    assert axes(host) == []
    assert "nplora" not in host.extra_networks.extra_network_registry


def test_every_control_has_an_id_of_its_tab(host):
    made = host.page.scripts_data[-1].script_class
    ids = []
    for is_img2img in (False, True):
        script = made()
        script.is_img2img = is_img2img
        controls = script.ui(is_img2img)
        tab = "img2img" if is_img2img else "txt2img"
        assert all(control.elem_id.startswith(f"{tab}_nplora") for control in controls)
        assert [field for field, _ in script.infotext_fields] == controls
        assert [name for _, name in script.infotext_fields] == script.paste_field_names
        ids += [control.elem_id for control in controls]
    assert len(set(ids)) == len(ids)


def test_our_settings_are_a_section_of_their_own(host):
    assert set(host.page.opts.labels) == {
        f"nplora_{name}" for name in ("mu", "k", "balance", "method", "hypernet", "on_error", "cache")
    }


def test_the_panel_starts_as_the_settings_say(host):
    for name, value in (("mu", "hard"), ("k", "90%"), ("method", "direct")):
        host.page.opts.set(f"nplora_{name}", value)
    reload(host)
    assert host.script_args[1:] == [False, "", "", 0.5, True, 1.0, 1.0, "90%", "direct", True, *[""] * 8, "off"]
    host.page.opts.set("nplora_mu", "0.25")
    reload(host)
    assert host.script_args[4:6] == [0.25, False]


def test_the_host_does_not_keep_what_a_setting_decides(host):
    (script,) = host.page.alwayson
    kept = {
        name
        for (field, _), name in zip(script.infotext_fields, fields())
        if not getattr(field, "do_not_save_to_config", False)
    }
    assert kept == {
        *("enabled", "content", "style", "te"),
        *("content_weight", "style_weight", "content_by_block", "style_by_block"),
    }


def test_a_setting_that_cannot_be_read_is_reported(host, caplog):
    for name, value in (("mu", "lots"), ("k", "some"), ("method", "magic")):
        host.page.opts.set(f"nplora_{name}", value)
    with caplog.at_level(logging.WARNING, "nplora"):
        reload(host)
    assert host.script_args[1:] == [False, "", "", 0.5, False, 1.0, 1.0, "all", "np", True, *[""] * 8, "off"]
    assert [name for name in ("mu", "k", "method") if f"the setting NP-LoRA: {name} is not used" in caplog.text] == [
        "mu",
        "k",
        "method",
    ]


@pytest.mark.parametrize(("gib", "expected"), [(3, 1), (7.8, 1), (15.6, 2), (31.9, 4), (64, 5), (512, 5)])
def test_the_cache_is_of_the_machines_size(gib, expected, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=int(gib * GIB)))
    assert allowance.usual_gib() == expected


def test_a_machine_that_does_not_tell_its_memory(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert allowance.usual_gib() == allowance.UNKNOWN


def test_the_cache_grows_with_its_setting(host):
    session = sys.modules["lib_nplora.webui.running"].session()
    caches = session._loras, session._bases, session._fused
    assert sum(cache.max_bytes for cache in caches) == pytest.approx(allowance.usual_gib() * GIB, abs=3)
    host.page.opts.set("nplora_cache", 20)
    assert sum(cache.max_bytes for cache in caches) == pytest.approx(20 * GIB, abs=3)
    reload(host)
    session = sys.modules["lib_nplora.webui.running"].session()
    assert session._loras.max_bytes == pytest.approx(8 * GIB, abs=1)


def test_routes_come_with_the_hosts_own(host):
    app = FastAPI()
    host.callbacks.call("app_started", None, app)
    assert not [route for route in app.routes if route.path.startswith("/nplora")]
    app.add_api_route("/sdapi/v1/txt2img", lambda: None, methods=["POST"])
    host.callbacks.call("app_started", None, app)
    assert {route for route in app.openapi()["paths"] if route.startswith("/nplora")} == {
        "/nplora/v1/loras",
        "/nplora/v1/fuse",
        "/nplora/v1/inspect",
    }


class Variants(Script):
    """Another extension, which gives each picture another prompt."""

    args_from = args_to = 0
    mus = ("1", "1", "1", "2")

    def process(self, p, *args):
        p.all_prompts = [prompt.replace("__mu__", mu) for prompt, mu in zip(p.all_prompts, self.mus)]


def test_other_fusions_in_a_batch_are_told(host):
    """The host heeds the first prompt of a batch, as with <lora:>."""
    Loras(host)
    expected = host.generate("a cat <nplora:dog:vangogh:1>", batch_size=2, n_iter=2)
    assert expected.comments == ()
    host.page.alwayson = [*host.page.alwayson, Variants()]
    tag = "a cat <nplora:dog:vangogh:__mu__>"
    together = host.generate(tag, batch_size=2, n_iter=2)
    assert together.pixels == expected.pixels
    (told,) = together.comments
    assert told.startswith("NP-LoRA: 1 of 2 pictures of a batch ask for another fusion than its first")
    assert host.generate(tag, n_iter=4).comments == ()


class Wildcards(Script):
    """Another extension, which writes the prompts anew."""

    args_from = args_to = 0

    def process(self, p, *args):
        for wildcard, found in (("__animal__", "cat"), ("__lora__", "dog")):
            p.all_prompts = [prompt.replace(wildcard, found) for prompt in p.all_prompts]


def with_wildcards(host, ours_first: bool) -> None:
    scripts = [*host.page.alwayson, Wildcards()]
    host.page.alwayson = sorted(scripts, key=lambda script: isinstance(script, Wildcards) == ours_first)


@pytest.mark.parametrize("ours_first", [True, False])
def test_another_script_may_write_the_prompts_before_or_after(host, ours_first):
    Loras(host)
    expected = host.generate("a cat <nplora:dog:vangogh:1>")
    with_wildcards(host, ours_first)
    args, ours = host.script_args, next(x for x in host.page.alwayson if not isinstance(x, Wildcards))
    host.script_args = [*args[: ours.args_from], True, "dog", "vangogh", 1.0, *args[ours.args_from + 4 :]]
    (pixels,) = host.generate("a __animal__").pixels
    assert (pixels,) == expected.pixels


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_wildcard_in_a_tag_may_stand_for_a_lora(host, ours_first):
    Loras(host)
    expected = host.generate("a cat <nplora:dog:vangogh:1>")
    with_wildcards(host, ours_first)
    picture = host.generate("a __animal__ <nplora:__lora__:vangogh:1>")
    assert picture.pixels == expected.pixels
    assert picture.infotext == expected.infotext
