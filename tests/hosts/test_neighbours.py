"""What other extensions do to the hosts while a picture is made, done in their way to the stand-ins."""

from __future__ import annotations

import sys

import pytest

from ..reference.kohya import factors, fused, winners
from ..reference.matrices import added
from .contract import KLORA, Loras
from .contract.schedules import letters_by_layer, sampler_passes, updates_by_winner
from .standins.a1111 import A1111
from .standins.forge import Forge
from .standins.page import Script


@pytest.fixture
def loras(driver) -> Loras:
    return Loras(driver)


def strength_changed(driver, steps: dict[int, float]) -> None:
    """As lora-block-weight's `start=` and `stop=` in Forge: the first LoRA is merged anew, under another name."""

    def before_call(params):
        if params.sampling_step not in steps:
            return
        unet = driver.sd_model.forge_objects.unet
        name = next(iter(unet.lora_patches))
        patches = unet.lora_patches.pop(name)
        for several in patches.values():
            for patch in several:
                patch[0] = steps[params.sampling_step]
        meanwhile = f"{name[0]}_1764437000.0", *name[1:]
        unet.lora_patches[meanwhile] = patches
        unet.load()
        unet.lora_patches[name] = unet.lora_patches.pop(meanwhile)

    sys.modules["modules.script_callbacks"].on_cfg_denoiser(before_call)


@pytest.mark.parametrize("driver", [Forge], indirect=True)
def test_a_lora_whose_strength_changes_in_mid_picture(driver, loras):
    """What wins goes on changing after the other LoRA was merged anew."""
    expected = winners(loras.knight, loras.ink, "klora", 6)
    hat = factors(loras.hat)
    sides = updates_by_winner(loras.knight, loras.ink, expected)
    beside = {name: (0.5 * hat[name][0], hat[name][1]) for name in expected}
    driver.watch(
        {
            **{side: {name: added(update, hat[name]) for name, update in at.items()} for side, at in sides.items()},
            **{side.upper(): {n: added(update, beside[n]) for n, update in at.items()} for side, at in sides.items()},
        }
    )
    strength_changed(driver, {2: 0.5})
    for _ in range(2):
        driver.sd_model.current_lora_hash = None
        driver.generate(f"<lora:hat:1> {KLORA}", steps=6)
        found = letters_by_layer(driver.seen())
        assert {name: letters.lower() for name, letters in found.items()} == expected
        assert {letters[0].islower() and letters[-1].isupper() for letters in found.values()} == {True}


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


class BlockWeights(Script):
    """As lora-block-weight in Forge: the n-th LoRA of the prompt is the n-th that is patched, and gets another name."""

    args_from = args_to = 0

    def __init__(self, host) -> None:
        self.host = host

    def process(self, p, *args):
        self.host.sd_model.current_lora_hash = None

    def after_extra_networks_activate(self, p, *args, extra_network_data, **kwargs):
        tables = self.host.sd_model.forge_objects_after_applying_lora.unet.lora_patches
        for tag, name in zip(extra_network_data.get("lora", []), list(tables)):
            patches = tables.pop(name)
            for several in patches.values():
                for patch in several:
                    patch[0] = float(tag.named["lbw"])
            tables[(name[0], tag.named["lbw"], *name[2:])] = patches


@pytest.mark.parametrize("driver", [Forge], indirect=True)
def test_weights_by_block_that_differ_between_the_passes(driver, loras):
    """Scripts that change what the host's LoRAs do find nothing of ours among it."""
    driver.page.alwayson = [*driver.page.alwayson, BlockWeights(driver)]
    both, hat = fused(loras.dog, loras.vangogh, 0.5), factors(loras.hat)
    names = [name for name in hat if name in both][:4]
    driver.watch(
        {
            str(weight): {name: added(both[name], (weight * hat[name][0], hat[name][1])) for name in names}
            for weight in (0.5, 0.2)
        }
    )
    tag = "<nplora:dog:vangogh:0.5>"
    for _ in range(2):
        driver.generate(f"{tag} <lora:hat:1:lbw=0.5>", hr_prompt=f"{tag} <lora:hat:1:lbw=0.2>")
        first, second = sampler_passes(driver.seen())
        assert letters_by_layer(first) == dict.fromkeys(names, "0.5" * len(first))
        assert letters_by_layer(second) == dict.fromkeys(names, "0.2" * len(second))
