"""A1111's WebUI: fusions go in as networks of its built-in Lora extension.

The host patches lazily: at each layer's forward it compares (name, multipliers) of every entry of `loaded_networks`
with what the layer holds, and on a difference restores the layer and adds `calc_updown` of each entry's module. So an
entry of ours needs nothing but a name that changes with its content. A layer that shall change in the middle of a
picture gets another module and a wrong memory of what it holds.

q, k and v of an attention that keeps them in one weight are modules of their own, named after the layer. The host
leaves them out unless all are there.
"""

from __future__ import annotations

import copy
import itertools
import re
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..errors import FileError, HostError
from ..fusion.fused import FusedLora, Winners
from ..layers.key import ModuleKey, Part
from ..layers.weights import LoraWeights
from ..maths.delta import Delta, placed, total
from ..maths.dense import DenseDelta
from ..maths.lowrank import LowRankDelta, exact_math
from .collected import Collected, module_names
from .lora_list import LoraList
from .protocol import LoraFile

BIAS = ".bias"

OUTDATED = ("nplora",)
"""What a layer holds by its own account when it is to be patched again, also if no network is wanted by then."""

_THIRDS = ("q", "k", "v")


def detect() -> A1111Host | None:
    """The adapter, if the built-in Lora extension patches layers from a list of networks."""
    networks = sys.modules.get("networks")
    needed = ("loaded_networks", "load_network", "module_types", "network_apply_weights", "re_x_proj")
    return A1111Host(networks) if all(hasattr(networks, name) for name in needed) else None


class A1111Host(LoraList):
    """See Host."""

    name = "A1111"

    def __init__(self, networks: Any) -> None:
        import network
        from modules import sd_models

        super().__init__(networks)
        self._network = network
        self._model_data = sd_models.model_data
        self._applied: list[Any] = []
        self._model: Hashable = None
        self._made: WeakKeyDictionary[FusedLora, Any] = WeakKeyDictionary()
        self._standing: WeakKeyDictionary[FusedLora, Winners] = WeakKeyDictionary()
        self._count = itertools.count()

    @property
    def checkpoint(self) -> str | None:
        info = getattr(self._model_data.sd_model, "sd_checkpoint_info", None)
        return info.filename if info else None

    def model_token(self) -> Hashable:
        model = self._model_data.sd_model
        return id(model.network_layer_mapping), model.sd_checkpoint_info.filename

    def load(self, file: LoraFile) -> LoraWeights:
        try:
            with _picture_rng_kept():
                net = self._networks.load_network(file.name, file.record)
        except Exception as error:
            raise FileError(f"'{file.name}' cannot be read: {error}") from error
        collected = Collected(file)
        applied: set[str] = set()
        left_out: set[str] = set()
        with exact_math():
            for sd_key, module in net.modules.items():
                names = applied if self._is_applied(sd_key, net) and self._collect(collected, module) else left_out
                names.add(module.network_key)
        unmatched = module_names(left_out) | _module_names(file) - module_names(applied)
        return collected.weights(unmatched, self.model_token())

    def apply(self, fused: Sequence[FusedLora]) -> None:
        ours = [self._made.get(lora) or self._make(lora) for lora in fused]
        self.clear()
        self._networks.loaded_networks.extend(ours)
        self._applied = ours
        self._model = self.model_token()
        for lora in fused:
            self.swap(lora, lora.first_winners())

    def swap(self, fused: FusedLora, winners: Winners) -> None:
        """Not in a refiner that the host had kept in memory: it takes over without another `apply`."""
        if self.model_token() != self._model:
            return
        standing = self._standing[fused]
        changed = {str(key.name).removesuffix(BIAS) for key, winner in winners.items() if standing[key] != winner}
        if not changed:
            return
        net = self._made[fused]
        updates = {
            key: fused.update(key, winners) for key in fused.deltas if str(key.name).removesuffix(BIAS) in changed
        }
        made = self._modules(net, updates)
        net.modules.update(made)
        for sd_key in made:
            layer = self._layer(sd_key)[0]
            if getattr(layer, "network_current_names", ()):
                layer.network_current_names = OUTDATED
        self._standing[fused] = winners

    def clear(self) -> None:
        loaded = self._networks.loaded_networks
        loaded[:] = [net for net in loaded if net not in self._applied]
        self._applied = []

    # reading

    def _collect(self, collected: Collected, module: Any) -> bool:
        """Take what a module adds to weight and bias. False if the host fails at it, which leaves the layer alone."""
        key, shape = self._key(module), self._weight(module).shape
        if _is_product(module):
            mid = None if module.mid_model is None else module.mid_model.weight
            up, down = module.up_model.weight, module.down_model.weight
            collected.add_factors(key, shape, up, down, mid, lambda: float(module.calc_scale()))
            return True
        if not _is_calculable(_exact(module), self._weight(module)):
            return False
        update, bias = self._updown(module)
        collected.add_dense(key, shape, DenseDelta.of(update), lambda: DenseDelta.of(self._updown(module)[0]))
        if bias is not None:
            of_bias = ModuleKey(f"{key.name}{BIAS}", key.part)
            collected.add_dense(of_bias, shape[:1], DenseDelta.of(bias), partial(DenseDelta.of, bias))
        return True

    def _updown(self, module: Any) -> tuple[Tensor, Tensor | None]:
        """What the host adds to the layer's own weight and bias, by the host's own calculation, in float32."""
        weight = self._weight(module).to("cpu", torch.float32, copy=True)
        update, bias = cast("tuple[Tensor, Tensor | None]", _exact(module).calc_updown(weight))
        return update.reshape(weight.shape), bias

    def _weight(self, module: Any) -> Tensor:
        """The layer's weight as the checkpoint has it; of q, k or v, that third alone.

        Without the channels that an inpainting model adds to the first layer: the host gives those no update.
        """
        layer, third = self._layer(module.sd_key)
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

    def _layer(self, sd_key: str) -> tuple[Any, int | None]:
        """The layer that holds a module's weight, and which third of it the module is for."""
        layers = self._model_data.sd_model.network_layer_mapping
        attention = re.fullmatch(r"(.*)_([qkv]|out)_proj", sd_key)
        owner = layers.get(attention[1]) if attention else None
        if attention and (hasattr(owner, "in_proj_weight") or sd_key not in layers):
            return owner, _THIRDS.index(attention[2]) if attention[2] in _THIRDS else None
        return layers[sd_key], None

    def _is_applied(self, sd_key: str, net: Any) -> bool:
        """Whether the host would: it leaves q, k and v out unless all are there, and out_proj beside them."""
        layer, third = self._layer(sd_key)
        if third is None and not hasattr(layer, "in_proj_weight"):
            return True
        name = re.sub("_([qkv]|out)_proj$", "", sd_key)
        needed = (*_THIRDS, "out") if hasattr(layer, "in_proj_weight") else _THIRDS
        return all(f"{name}_{third}_proj" in net.modules for third in needed)

    def _key(self, module: Any) -> ModuleKey:
        """A third of a weight that can also be patched whole is a slice of its rows."""
        layer, third = self._layer(module.sd_key)
        if third is None or hasattr(layer, "in_proj_weight"):
            return ModuleKey(module.sd_key, self._part(module))
        rows = layer.weight.shape[0] // 3
        name = re.sub("_[qkv]_proj$", "", module.sd_key)
        return ModuleKey(name, self._part(module), (third * rows, (third + 1) * rows))

    def _part(self, module: Any) -> Part:
        """Which of the two multipliers the host would use for this module."""
        net = module.network
        net.te_multiplier = 0.0
        part: Part = "unet" if module.multiplier() else "te"
        net.te_multiplier = 1.0
        return part

    # writing

    def _make(self, lora: FusedLora) -> Any:
        """Layers that hold a network of this name already are not patched again, whoever wins them by now."""
        number = f" {next(self._count)}" if lora.schedule else ""
        net = self._network.Network(f"nplora {lora.title} {lora.fingerprint}{number}", None)
        winners = lora.first_winners()
        net.modules.update(self._modules(net, {key: lora.update(key, winners) for key in lora.deltas}))
        self._made[lora], self._standing[lora] = net, winners
        return net

    def _modules(self, net: Any, deltas: Mapping[ModuleKey, Delta]) -> dict[str, Any]:
        with exact_math(), _picture_rng_kept():
            return {key: self._module(net, key, weight, bias) for key, weight, bias in self._layers(deltas)}

    def _layers(self, deltas: Mapping[ModuleKey, Delta]) -> Iterator[tuple[str, Delta, Delta | None]]:
        """(layer, update of its weight, update of its bias), slices put together."""
        whole: dict[str, Delta] = {}
        for key, delta in deltas.items():
            name = str(key.name)
            if key.rows:
                delta = placed(delta, key.rows[0], self._layer(name)[0].weight.shape[0])
            whole[name] = total([whole[name], delta]) if name in whole else delta
        for name, weight in whole.items():
            if not name.endswith(BIAS):
                yield name, weight, whole.get(name + BIAS)

    def _module(self, net: Any, sd_key: str, weight: Delta, bias: Delta | None) -> Any:
        layer = self._layer(sd_key)[0]
        if isinstance(weight, LowRankDelta) and bias is None:
            up, down = weight.balanced().factors()
            w = {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(float(weight.rank))}
        else:
            w = {"diff": weight.tensor() if isinstance(weight, DenseDelta) else weight.dense()}
        if bias is not None:
            w["diff_b"] = bias.dense().flatten()
        weights = self._network.NetworkWeights(network_key=sd_key, sd_key=sd_key, w=w, sd_module=layer)
        for module_type in self._networks.module_types:
            module = module_type.create_module(net, weights)
            if module is not None:
                if not all(tensor.isfinite().all() for tensor in _tensors(module)):
                    raise HostError(f"the update of layer {sd_key} is too large for this WebUI's half precision")
                return module
        raise HostError(f"this WebUI has no LoRA module for layer {sd_key}")


def _is_product(module: Any) -> bool:
    """Whether the module's update is the product of its factors, and nothing more."""
    return hasattr(module, "up_model") and module.bias is None and getattr(module, "dora_scale", None) is None


def _exact(module: Any) -> Any:
    """A copy of the module that calculates in float32, not in the number format of the file or of the graphics card."""
    exact = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            setattr(exact, name, value.to("cpu", torch.float32))
        elif isinstance(value, torch.nn.Module) and value is not module.sd_module:
            setattr(exact, name, copy.deepcopy(value).to("cpu", torch.float32))
    return exact


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


def _tensors(module: Any) -> Iterator[Tensor]:
    for value in vars(module).values():
        if isinstance(value, torch.nn.Linear | torch.nn.Conv2d) and value is not module.sd_module:
            yield value.weight


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
