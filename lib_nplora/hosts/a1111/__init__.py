"""A1111's WebUI."""

from __future__ import annotations

import sys

from ..lora_list import LoraList
from ..protocol import Host

_NEEDED = (
    *("loaded_networks", "load_network", "module_types", "network_apply_weights", "re_x_proj"),
    *("available_networks", "available_network_aliases", "list_available_networks"),
)


def detect() -> Host | None:
    """The host, if the built-in Lora extension patches layers from a list of networks."""
    networks = sys.modules.get("networks")
    if not all(hasattr(networks, name) for name in _NEEDED):
        return None
    from .model import A1111Model

    return Host("A1111", A1111Model(networks), LoraList(networks))
