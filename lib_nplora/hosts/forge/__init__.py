"""Forge and Forge Neo."""

from __future__ import annotations

import importlib.util
import sys

from ..lora_list import LoraList
from ..protocol import Host

_NEEDED = ("load_lora_for_models", "available_networks", "available_network_aliases", "list_available_networks")
_MODULES = ("backend.args", "backend.utils", "backend.patcher.lora")


def detect() -> Host | None:
    """The host, if the built-in LoRA extension patches a UNet and a text encoder by way of `backend`."""
    networks = sys.modules.get("networks")
    if not all(hasattr(networks, name) for name in _NEEDED) or not all(map(_is_there, _MODULES)):
        return None
    from .model import ForgeModel

    return Host("Forge", ForgeModel(networks), LoraList(networks))


def _is_there(module: str) -> bool:
    """Whether a module of the host is loaded, or could be."""
    try:
        return module in sys.modules or importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
