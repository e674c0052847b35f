"""What other extensions do to the hosts while a picture is made, done in their way to the stand-ins."""

from __future__ import annotations

import sys

import pytest

from ..reference.kohya import factors, fused
from ..reference.matrices import added
from .contract import Loras
from .standins.a1111 import A1111


@pytest.fixture
def loras(driver) -> Loras:
    return Loras(driver)


@pytest.mark.parametrize("driver", [A1111], indirect=True)
def test_multipliers_that_are_set_by_the_names_of_files(driver, loras):
    """As regional prompter's latent mode: those of all networks, by the LoRAs that each region's prompt names."""

    def before_call(params):
        for net in driver.networks.loaded_networks:
            is_named = net.network_on_disk.alias in ("hat",)
            net.te_multiplier = net.unet_multiplier = 0.5 if is_named else 0.0

    sys.modules["modules.script_callbacks"].on_cfg_denoiser(before_call)
    driver.generate("a cat <nplora:dog:vangogh:0.5> <lora:hat:1>")
    expected = fused(loras.dog, loras.vangogh, 0.5)
    for name, (up, down) in factors(loras.hat).items():
        expected[name] = added(expected[name], (0.5 * up, down))
    assert driver.compare(expected).worst < 1e-4
