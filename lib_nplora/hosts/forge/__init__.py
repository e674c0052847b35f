"""Forge and Forge Neo."""

from __future__ import annotations

import sys

from .. import lora_list
from ..detection import is_loaded, is_there, lacks_nothing
from ..protocol import Host

USED = {
    "networks": ("load_lora_for_models", *lora_list.USED),
    "backend.args": ("dynamic_args",),
    "backend.utils": ("load_torch_file", "set_attr", "copy_to_param"),
    "backend.patcher.lora": ("load_lora", "merge_lora_to_weight", "model_lora_keys_unet", "model_lora_keys_clip"),
    "modules.sd_models": ("model_data",),
}


def detect() -> Host | None:
    """The host, if its built-in LoRA extension patches a UNet and a text encoder. Raises HostError."""
    if not (is_there("networks", "load_lora_for_models") and is_loaded("backend.patcher.lora")):
        return None
    lacks_nothing(USED)
    from .backend import Backend
    from .model import ForgeModel

    networks = sys.modules["networks"]
    return Host("Forge", ForgeModel(Backend(networks)), lora_list.LoraList(networks))
