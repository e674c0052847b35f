"""Makes A1111's networks of fused deltas, by its own module types."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ...errors import HostError
from ...fusion.fused import FusedLora
from ...layers.key import ModuleKey
from ...maths.delta import Delta, placed, total
from ...maths.dense import DenseDelta
from ...maths.lowrank import LowRankDelta, exact_math
from ...maths.remade import Remade
from .layers import Layers
from .read import BIAS, own_weights
from .rng import picture_rng_kept


class Writer:
    """Makes what the host adds to the model's layers."""

    def __init__(self, networks: Any, layers: Layers) -> None:
        import network

        self._networks = networks
        self._network = network
        self._fusion = _fusion_type(self._network.Network)
        self._layers = layers
        self._count = itertools.count()

    def network(self, lora: FusedLora) -> Any:
        """A network of a fusion, at its first winners.

        Layers that hold a network of this name already are not patched again, whoever wins them by now.
        """
        number = f" {next(self._count)}" if lora.schedule else ""
        name = f"nplora {lora.title} {lora.fingerprint}{number}"
        net = self._fusion(name, SimpleNamespace(name=name, alias=name, filename="", shorthash=""))
        winners = lora.first_winners()
        net.modules.update(self.modules(net, {key: lora.update(key, winners) for key in lora.deltas}))
        return net

    def modules(self, net: Any, deltas: Mapping[ModuleKey, Delta]) -> dict[str, Any]:
        """The network's modules for these updates, by layer."""
        with exact_math(), picture_rng_kept():
            return {key: self._module(net, key, weight, bias) for key, weight, bias in self._whole(deltas)}

    def _whole(self, deltas: Mapping[ModuleKey, Delta]) -> Iterator[tuple[str, Delta, Delta | None]]:
        """(layer, update of its weight, update of its bias), slices put together."""
        whole: dict[str, Delta] = {}
        for key, delta in deltas.items():
            name = str(key.name)
            if key.rows:
                delta = placed(delta, key.rows[0], self._layers.layer(name)[0].weight.shape[0])
            whole[name] = total([whole[name], delta]) if name in whole else delta
        for name, weight in whole.items():
            if not name.endswith(BIAS):
                yield name, weight, whole.get(name + BIAS)

    def _module(self, net: Any, sd_key: str, weight: Delta, bias: Delta | None) -> Any:
        layer = self._layers.layer(sd_key)[0]
        if isinstance(weight, LowRankDelta) and bias is None:
            up, down = weight.balanced().factors()
            w = {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(float(weight.rank))}
        else:
            w = {"diff": _tensor(weight)}
        if bias is not None:
            w["diff_b"] = bias.dense().flatten()
        weights = self._network.NetworkWeights(network_key=sd_key, sd_key=sd_key, w=w, sd_module=layer)
        for module_type in self._networks.module_types:
            module = module_type.create_module(net, weights)
            if module is not None:
                if not all(weight.isfinite().all() for weight in own_weights(module)):
                    raise HostError(f"the update of layer {sd_key} is too large for this WebUI's half precision")
                return module
        raise HostError(f"this WebUI has no LoRA module for layer {sd_key}")


class Later:
    """Stands where the host expects the tensor of a full difference, which is made when the host takes it."""

    def __init__(self, delta: Remade) -> None:
        self._delta = delta
        self.shape = torch.Size(delta.layer_shape)

    def to(self, device: torch.device) -> Tensor:
        """The update on a device, float32."""
        return self._delta.tensor_on(device)


def _tensor(delta: Delta) -> Any:
    """The tensor of an update, or what stands for it until it is made."""
    if isinstance(delta, Remade):
        return Later(delta)
    return delta.tensor() if isinstance(delta, DenseDelta) else delta.dense()


def _fusion_type(network_type: type[Any]) -> type[Any]:
    """The host's type of networks, of which others set the multipliers for each region of a picture.

    They go by the LoRAs that the region's prompt names. A fusion is the whole picture's: its multipliers stay 1.
    """
    one = property(lambda net: 1.0, lambda net, value: None)
    return type("Fusion", (network_type,), {"te_multiplier": one, "unet_multiplier": one})
