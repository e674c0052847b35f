"""LoRA.rar's hypernetwork in a WebUI: the settings page names it, for the tag, the panel and REST."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors import safe_open

from ..hosts.driver import write_lora
from ..hosts.standins.a1111 import A1111
from ..hosts.standins.driver import running
from ..hosts.standins.forge import Forge
from ..methods import narrow
from ..reference import lora_rar
from ..reference.kohya import deltas

TAG = "<nplora:dog:vangogh:method=rar>"
WIDTH = 32


@pytest.fixture(params=[A1111, Forge])
def host(request, tmp_path):
    with running(request.param, tmp_path) as host:
        for seed, name in enumerate(("dog", "vangogh")):
            write_lora(tmp_path / f"{name}.safetensors", host.modules, seed=seed)
        yield host


def test_the_setting_names_it(host, tmp_path, monkeypatch):
    file = narrow.written(tmp_path / "hypernet.pt.safetensors", WIDTH, monkeypatch)
    plain = host.generate("a cat")
    picture = host.generate(f"a cat {TAG}")
    (comment,) = picture.comments
    assert comment.startswith(f"NP-LoRA: {TAG}: method=rar needs LoRA.rar's hypernetwork, which its authors publish at")
    assert comment.endswith("name your copy in the WebUI's settings, NP-LoRA: hypernet")
    assert picture.pixels == plain.pixels

    host.set_option("nplora_hypernet", str(tmp_path / "dog.safetensors"))
    (comment,) = host.generate(f"a cat {TAG}").comments
    assert "'dog.safetensors' is not LoRA.rar's hypernetwork" in comment

    host.set_option("nplora_hypernet", f" {file} ")
    picture = host.generate(f"a cat {TAG}")
    assert "NP-LoRA hypernet: hypernet.pt.safetensors " in picture.infotext
    assert str(tmp_path) not in picture.infotext
    contents, styles = (deltas(tmp_path / f"{name}.safetensors") for name in ("dog", "vangogh"))
    hypernet = lora_rar.narrow_hypernet(WIDTH)
    for name, content in contents.items():
        is_weighed = "unet" in name and name.endswith(("to_q", "to_out_0"))
        style = styles[name]
        expected = lora_rar.merged(hypernet, content, style) if is_weighed else content + style
        assert np.linalg.norm(host.delta(name) - expected) < 1e-4 * np.linalg.norm(expected), name
    by_panel = host.generate("a cat", panel=[{"content": "dog", "style": "vangogh", "method": "rar"}])
    assert by_panel.pixels == picture.pixels
    assert host.generate(f"a cat {TAG.replace('rar', 'direct')}").pixels != picture.pixels

    host.set_option("nplora_hypernet", "")
    assert host.generate(f"a cat {TAG}").pixels == plain.pixels


def test_the_tag_cannot_name_it(host):
    (comment,) = host.generate("a cat <nplora:dog:vangogh:method=rar:hypernet=x>").comments
    assert "'hypernet=' has no place in a tag: it stands among the WebUI's settings, NP-LoRA: hypernet" in comment


def test_files_are_saved_by_it(host, tmp_path, monkeypatch):
    from lib_nplora.jobs.pair import Saving
    from lib_nplora.request.tag import parse_tag
    from lib_nplora.webui import running as session
    from lib_nplora.webui.saving import save

    file = narrow.written(tmp_path / "hypernet.safetensors", WIDTH, monkeypatch)
    host.set_option("nplora_hypernet", str(file))
    saved = save(session.host(), parse_tag(TAG[1:-1].split(":")[1:]), "both", Saving)
    with safe_open(saved.file, "pt") as opened:
        assert opened.metadata()["nplora_hypernet"].startswith("hypernet.safetensors ")
