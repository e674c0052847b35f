"""The names and hashes of fused LoRAs in a picture's parameters, one picture of a job after the other."""

from __future__ import annotations

import pytest

from lib_nplora.webui.infotext import read_hashes

from ..hosts.contract import Loras
from ..hosts.standins.common import Processing
from ..hosts.standins.driver import running
from ..hosts.standins.forge import Forge
from ..hosts.standins.ldm_patched import Classic


@pytest.fixture(params=[Forge, Classic])
def named(request, tmp_path):
    """A function (prompt, whether it is the hires pass) -> the names that a picture of the one job has then."""
    with running(request.param, tmp_path) as host:
        Loras(host)
        p = Processing(host, "", None)

        def activate(prompt: str, hires: bool = False) -> set[str]:
            (p.prompt,), data = host.extra_networks.parse_prompts([prompt])
            p.prompts, p.negative_prompts, p.is_hr_pass = [p.prompt], [""], hires
            host.extra_networks.activate(p, data)
            assert host.errors == []
            return set(read_hashes(p.extra_generation_params.get("Lora hashes", "")))

        yield activate


def test_beside_the_hosts_own(named):
    assert named("a cat <lora:hat:1> <nplora:dog:vangogh:0.5>") == {"hat", "dog", "vangogh"}


def test_those_of_the_picture_before_are_gone(named):
    named("a cat <lora:hat:1> <nplora:dog:vangogh:0.5>")
    assert named("a cat <nplora:hat:vangogh:0.5>") == {"hat", "vangogh"}
    assert named("a cat <lora:dog:1> <nplora:hat:vangogh:0.5>") == {"dog", "hat", "vangogh"}


def test_the_hires_pass_adds_its_own(named):
    named("a cat <nplora:dog:vangogh:0.5>")
    assert named("a cat <nplora:hat:vangogh:0.5>", hires=True) == {"dog", "hat", "vangogh"}


def test_none_if_the_user_wants_none(tmp_path):
    with running(Classic, tmp_path) as host:
        Loras(host)
        host.page.opts.lora_add_hashes_to_infotext = False
        assert "Lora hashes" not in host.generate("a cat <nplora:dog:vangogh:0.5>").infotext
