"""The layers of A1111's model, by the keys of its networks' modules.

q, k and v of an attention that keeps them in one weight are modules of their own, named after the layer. The host
leaves them out unless all are there.
"""

from __future__ import annotations

import re
from typing import Any, cast

import torch
from torch import Tensor

from ...layers.block import Block
from ...layers.key import ModuleKey
from ...layers.place import Part

_THIRDS = ("q", "k", "v")

_UNET = "diffusion_model"
"""Starts the names of a diffusion model's layers. Those of text encoders start otherwise."""


class Layers:
    """Looks layers up in the loaded model."""

    def __init__(self, model_data: Any) -> None:
        self._model_data = model_data

    @property
    def by_name(self) -> dict[str, Any]:
        """The layers that LoRAs can change, by the names that the host gives them."""
        found: dict[str, Any] = self._model_data.sd_model.network_layer_mapping
        return found

    def blocks(self) -> set[Block]:
        """The blocks that these layers stand in."""
        names = (name for name, layer in self.by_name.items() if getattr(layer, "weight", None) is not None)
        return {ModuleKey(name, "unet" if name.startswith(_UNET) else "te").place.block for name in names}

    def weight(self, module: Any) -> Tensor:
        """The layer's weight as the checkpoint has it; of q, k or v, that third alone.

        Without the channels that an inpainting model adds to the first layer: the host gives those no update.
        """
        layer, third = self.layer(module.sd_key)
        backup = getattr(layer, "network_weights_backup", None)
        if hasattr(layer, "in_proj_weight"):
            qkv, out = backup or (layer.in_proj_weight, layer.out_proj.weight)
            weight = out if third is None else qkv.chunk(3)[third]
        else:
            full = getattr(layer, "fp16_weight", None)
            weight = next(found for found in (full, backup, layer.weight) if found is not None)
            weight = weight if third is None else weight.chunk(3)[third]
        if weight.dim() == 4 and weight.shape[1] == 9:
            weight = weight[:, :4]
        return cast("Tensor", weight.detach())

    def dtype(self, sd_key: str) -> torch.dtype:
        """The number format of the layer's weight."""
        layer, _ = self.layer(sd_key)
        weight = layer.in_proj_weight if hasattr(layer, "in_proj_weight") else layer.weight
        return cast("Tensor", weight).dtype

    def layer(self, sd_key: str) -> tuple[Any, int | None]:
        """The layer that holds a module's weight, and which third of it the module is for."""
        layers = self.by_name
        named = re.fullmatch(r"(.*)_([qkv]|out)_proj", sd_key)
        attention = layers.get(named[1]) if named else None
        if named and (hasattr(attention, "in_proj_weight") or sd_key not in layers):
            return attention, _THIRDS.index(named[2]) if named[2] in _THIRDS else None
        return layers[sd_key], None

    def is_applied(self, sd_key: str, net: Any) -> bool:
        """Whether the host would: it leaves q, k and v out unless all are there, and out_proj beside them."""
        layer, third = self.layer(sd_key)
        if third is None and not hasattr(layer, "in_proj_weight"):
            return True
        name = re.sub("_([qkv]|out)_proj$", "", sd_key)
        needed = (*_THIRDS, "out") if hasattr(layer, "in_proj_weight") else _THIRDS
        return all(f"{name}_{one}_proj" in net.modules for one in needed)

    def key(self, module: Any) -> ModuleKey:
        """The layer that a module is for. A third of a weight that can also be patched whole is a slice of its rows."""
        layer, third = self.layer(module.sd_key)
        if third is None or hasattr(layer, "in_proj_weight"):
            return ModuleKey(module.sd_key, _part(module))
        rows = layer.weight.shape[0] // 3
        name = re.sub("_[qkv]_proj$", "", module.sd_key)
        return ModuleKey(name, _part(module), (third * rows, (third + 1) * rows))


def _part(module: Any) -> Part:
    """Which of the two multipliers the host would use for this module."""
    net = module.network
    net.te_multiplier = 0.0
    part: Part = "unet" if module.multiplier() else "te"
    net.te_multiplier = 1.0
    return part
