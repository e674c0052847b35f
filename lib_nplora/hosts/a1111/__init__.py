"""A1111's WebUI."""

from __future__ import annotations

import sys

from ...errors import HostError
from .. import lora_list
from ..detection import is_there, missing
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
    if not is_there("networks", "network_apply_weights"):
        return None
    if lacking := missing(USED):
        raise HostError(f"this WebUI has no {', '.join(lacking)}")
    from .model import A1111Model

    networks = sys.modules["networks"]
    return Host("A1111", A1111Model(networks), lora_list.LoraList(networks))
