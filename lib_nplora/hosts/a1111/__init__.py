"""A1111's WebUI."""

from __future__ import annotations

import sys

from .. import lora_list
from ..detection import is_there, lacks_nothing
from ..protocol import Host

USED = {
    "networks": (
        *("loaded_networks", "load_network", "module_types", "network_apply_weights", "re_x_proj"),
        *lora_list.USED,
    ),
    "network": ("Network", "NetworkWeights"),
    "modules.sd_models": ("model_data",),
}


def detect() -> Host | None:
    """The host, if its built-in Lora extension patches layers from a list of networks. Raises HostError."""
    if not is_there("networks", "module_types"):
        return None
    lacks_nothing(USED)
    from .model import A1111Model

    networks = sys.modules["networks"]
    return Host("A1111", A1111Model(networks), lora_list.LoraList(networks))
