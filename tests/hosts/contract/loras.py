"""The LoRAs that the suite plays with."""

from __future__ import annotations

import torch

from .. import formats
from ..driver import Driver, write_lora
from .layers import sample

HARD = float("inf")
GAINS = (0.9, 1.1, 1.7, 0.7, 0.8, 1.2, 1.4)
"""How strong the layers of a LoRA are that is to lose them to another at different steps."""

KLORA = "a cat <nplora:knight:ink:method=klora>"
KINDS = ("lora", "dora", "dora_out", "loha", "loha_tucker", "lokr", "full", "norm", "glora", "ia3", "oft", "boft")


class Loras:
    """The files that the suite plays with, in the host's LoRA folder."""

    def __init__(self, driver: Driver) -> None:
        folder = driver.lora_dir
        modules = driver.modules
        unet_only = tuple(module for module in modules if module.name.startswith("lora_unet"))
        half = len(unet_only) // 2
        self.dog = write_lora(folder / "dog.safetensors", modules, seed=1, rank=4, alpha=2)
        self.vangogh = write_lora(folder / "vangogh.safetensors", modules, seed=2, rank=6)
        self.hat = write_lora(folder / "hat.safetensors", unet_only, seed=3, rank=2, alpha=1)
        self.odd = write_lora(folder / "Van Gogh, v1.5 (röt).safetensors", modules, seed=4, rank=3)
        self.aliased = write_lora(
            folder / "file_0007.safetensors", modules, seed=5, metadata={"ss_output_name": "My Alias"}
        )
        self.tucker = write_lora(folder / "tucker.safetensors", modules, seed=9, tucker=True)
        self.half_precision = write_lora(folder / "bf16.safetensors", modules, seed=10, dtype=torch.bfloat16)
        self.namesake = write_lora(folder / "nplora dog x vangogh.safetensors", unet_only, seed=11)
        self.first_half = write_lora(folder / "first.safetensors", unet_only[:half], seed=6)
        self.second_half = write_lora(folder / "second.safetensors", unet_only[half:], seed=7)
        self.knight = write_lora(folder / "knight.safetensors", modules, seed=40, gains=GAINS)
        self.ink = write_lora(folder / "ink.safetensors", modules, seed=41, rank=5)
        self.small_content = write_lora(folder / "small content.safetensors", sample(driver), seed=42)
        self.small_style = write_lora(folder / "small style.safetensors", sample(driver), seed=43)
        wider = tuple(type(m)(m.name, m.out, m.inp + 8, m.kernel) for m in modules)
        self.other_model = write_lora(folder / "sdxl_thing.safetensors", wider, seed=8)
        for seed, kind in enumerate(KINDS):
            formats.write(folder / f"{kind}.safetensors", kind, sample(driver), driver.norms, seed=20 + seed)
        self.broken = folder / "broken.safetensors"
        self.broken.write_bytes(self.dog.read_bytes()[:-1000])
