"""A1111's WebUI: fusions go in as networks of its built-in Lora extension.

The host patches lazily: at each layer's forward it compares (name, multipliers) of every entry of `loaded_networks`
with what the layer holds, and on a difference restores the layer and adds `calc_updown` of each entry's module. So an
entry of ours needs nothing but a name that changes with its content.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakKeyDictionary

import torch

from ..errors import FileError, HostError
from ..lowrank import LowRankDelta, exact_math
from ..weights import FusedLora, LoraWeights, ModuleKey, Part
from .lora_list import LoraList, check_fits, check_matched, module_names
from .protocol import LoraFile


def detect() -> A1111Host | None:
    """The adapter, if the built-in Lora extension patches layers from a list of networks."""
    networks = sys.modules.get("networks")
    needed = ("loaded_networks", "load_network", "module_types", "network_apply_weights", "re_x_proj")
    return A1111Host(networks) if all(hasattr(networks, name) for name in needed) else None


class A1111Host:
    """See Host."""

    name = "A1111"

    def __init__(self, networks: Any) -> None:
        import network
        from modules import sd_models

        self._networks = networks
        self._network = network
        self._model_data = sd_models.model_data
        self._list = LoraList(networks)
        self._applied: list[Any] = []
        self._made: WeakKeyDictionary[FusedLora, Any] = WeakKeyDictionary()
        self.resolve = self._list.resolve

    def model_token(self) -> Hashable:
        model = self._model_data.sd_model
        return id(model.network_layer_mapping), model.sd_checkpoint_info.filename

    def load(self, file: LoraFile) -> LoraWeights:
        try:
            with _picture_rng_kept():
                net = self._networks.load_network(file.name, file.record)
        except Exception as error:
            raise FileError(f"'{file.name}' cannot be read: {error}") from error
        deltas = {}
        with exact_math():
            for sd_key, module in net.modules.items():
                delta = self._delta(file, module)
                rows, *columns = module.shape
                check_fits(file, delta.shape == (rows, torch.Size(columns).numel()), sd_key, delta)
                deltas[ModuleKey(sd_key, self._part(module))] = delta
        matched = module_names(module.network_key for module in net.modules.values())
        unmatched = tuple(sorted(_module_names(file) - matched))
        check_matched(file, len(matched), len(unmatched))
        return LoraWeights(file.name, file.stamp, deltas, unmatched)

    def apply(self, fused: Sequence[FusedLora]) -> None:
        ours = [self._made.get(lora) or self._make(lora) for lora in fused]
        self.clear()
        self._networks.loaded_networks.extend(ours)
        self._applied = ours

    def clear(self) -> None:
        loaded = self._networks.loaded_networks
        loaded[:] = [net for net in loaded if net not in self._applied]
        self._applied = []

    def _delta(self, file: LoraFile, module: Any) -> LowRankDelta:
        """The module's update, exactly, from the factors that the host holds."""
        kind = type(module).__name__.removeprefix("NetworkModule")
        if getattr(module, "dora_scale", None) is not None:
            kind = "DoRA"
        if kind != "Lora" or module.bias is not None:
            raise FileError(f"'{file.name}' holds {kind} modules; only LoRA and LoCon can be fused")
        mid = None if module.mid_model is None else module.mid_model.weight
        scale = float(module.calc_scale())
        return LowRankDelta.from_factors(module.up_model.weight, module.down_model.weight, mid, scale)

    def _part(self, module: Any) -> Part:
        """Which of the two multipliers the host would use for this module."""
        net = module.network
        net.te_multiplier, net.unet_multiplier = 0.0, 1.0
        return "unet" if module.multiplier() else "te"

    def _make(self, lora: FusedLora) -> Any:
        net = self._network.Network(f"nplora {lora.title} {lora.fingerprint}", None)
        with exact_math(), _picture_rng_kept():
            for key, delta in lora.deltas.items():
                net.modules[key.name] = self._module(net, str(key.name), delta.balanced())
        self._made[lora] = net
        return net

    def _module(self, net: Any, sd_key: str, delta: LowRankDelta) -> Any:
        layers = self._model_data.sd_model.network_layer_mapping
        layer = layers.get(sd_key)
        if layer is None and (match := self._networks.re_x_proj.match(sd_key)):
            layer = layers.get(match.group(1))
        up, down = delta.factors()
        w = {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(float(delta.rank))}
        weights = self._network.NetworkWeights(network_key=sd_key, sd_key=sd_key, w=w, sd_module=layer)
        for module_type in self._networks.module_types:
            module = module_type.create_module(net, weights)
            if module is not None:
                return module
        raise HostError(f"this WebUI has no LoRA module for layer {sd_key}")


def _picture_rng_kept() -> AbstractContextManager[None]:
    """The host's modules are torch layers, which draw random numbers at birth."""
    return torch.random.fork_rng(devices=[])


def _module_names(file: LoraFile) -> set[str]:
    """Names of the modules in the file; without those of a pickle, which only the host may open."""
    from safetensors import safe_open

    if not file.path.lower().endswith(".safetensors"):
        return set()
    with safe_open(file.path, "pt") as tensors:
        return module_names(tensors.keys())
