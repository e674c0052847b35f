"""Reads LoRAs by A1111's own loader."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator
from typing import Any, cast

import torch
from torch import Tensor

from ...errors import FileError
from ...layers.key import ModuleKey
from ...layers.weights import LoraWeights
from ...maths.dense import DenseDelta
from ...maths.lowrank import exact_math
from ...maths.remade import Making
from ..collected import Collected, module_names
from ..protocol import ShelfFile
from .layers import Layers
from .rng import picture_rng_kept

_CPU = torch.device("cpu")

BIAS = ".bias"
"""Ends the name under which what is added to a layer's bias is kept."""


class Reader:
    """Takes what the host's modules add to the model's layers."""

    def __init__(self, networks: Any, layers: Layers) -> None:
        self._networks = networks
        self._layers = layers

    def load(self, file: ShelfFile, token: Hashable) -> LoraWeights:
        """The deltas for the loaded model, whose token this is. Raises FileError, MismatchError."""
        try:
            with picture_rng_kept():
                net = self._networks.load_network(file.name, file.record)
        except Exception as error:
            raise FileError(f"'{file.name}' cannot be read: {error}") from error
        collected = Collected(file)
        applied: set[str] = set()
        left_out: set[str] = set()
        with exact_math():
            for sd_key, module in net.modules.items():
                is_taken = self._layers.is_applied(sd_key, net) and self._collect(collected, module)
                (applied if is_taken else left_out).add(module.network_key)
        unmatched = module_names(left_out) | _names_in(file) - module_names(applied)
        return collected.weights(unmatched, token)

    def _collect(self, collected: Collected, module: Any) -> bool:
        """Take what a module adds to weight and bias. False if the host fails at it, which leaves the layer alone."""
        key, shape = self._layers.key(module), self._layers.weight(module).shape
        if _is_product(module):
            mid = None if module.mid_model is None else module.mid_model.weight
            up, down = module.up_model.weight, module.down_model.weight
            collected.add_factors(key, shape, up, down, mid, lambda: float(module.calc_scale()))
            return True
        if not _is_calculable(_exact(module, _CPU), self._layers.weight(module)):
            return False
        update, bias = self._updown(module, _CPU)
        delta = DenseDelta.of(update)
        again = Making(lambda device: self._updown(module, device)[0], _nbytes(module), delta.energy())
        collected.add_dense(key, shape, delta, again if delta.has_input_side else None)
        if bias is not None:
            collected.add_dense(ModuleKey(f"{key.name}{BIAS}", key.part), shape[:1], DenseDelta.of(bias))
        return True

    def _updown(self, module: Any, device: torch.device | None) -> tuple[Tensor, Tensor | None]:
        """What the host adds to the layer's own weight and bias, by the host's own calculation, in float32."""
        weight = self._layers.weight(module)
        weight = weight.to(device or weight.device, torch.float32, copy=True)
        update, bias = cast("tuple[Tensor, Tensor | None]", _exact(module, weight.device).calc_updown(weight))
        return update.reshape(weight.shape), bias


def _is_product(module: Any) -> bool:
    """Whether the module's update is the product of its factors, and nothing more."""
    return hasattr(module, "up_model") and module.bias is None and getattr(module, "dora_scale", None) is None


def _exact(module: Any, device: torch.device) -> Any:
    """A copy of the module that calculates in float32, not in the number format of the file or of the graphics card."""
    exact = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            setattr(exact, name, value.to(device, torch.float32))
        elif isinstance(value, torch.nn.Module) and value is not module.sd_module:
            setattr(exact, name, copy.deepcopy(value).to(device, torch.float32))
    return exact


def own_weights(module: Any) -> Iterator[Tensor]:
    """Those of the torch layers that a module makes of its file's factors."""
    for value in vars(module).values():
        if isinstance(value, torch.nn.Module) and value is not module.sd_module:
            yield from value.parameters()


def _nbytes(module: Any) -> int:
    """Bytes of all that a module holds of its file."""
    held = (value for value in vars(module).values() if isinstance(value, Tensor))
    return sum(tensor.nbytes for tensor in (*held, *own_weights(module)))


def _is_calculable(module: Any, weight: Tensor) -> bool:
    """Whether the host's calculation works out, tried without values.

    If it does not, the host leaves the layer alone. Factors that fit no layer fail here, before their product takes all
    memory there is.
    """
    try:
        update, _ = module.calc_updown(torch.empty(weight.shape, device="meta"))
        update.reshape(weight.shape)
    except RuntimeError as error:
        return "meta" in str(error)
    return True


def _names_in(file: ShelfFile) -> set[str]:
    """Names of the modules in the file; without those of a pickle, which only the host may open."""
    from safetensors import safe_open

    if not file.path.lower().endswith(".safetensors"):
        return set()
    with safe_open(file.path, "pt") as tensors:
        return module_names(tensors.keys())
