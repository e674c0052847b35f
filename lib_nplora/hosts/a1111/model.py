"""A1111's model: fusions go in as networks of its built-in Lora extension.

The host patches lazily: at each layer's forward it compares (name, multipliers) of every entry of `loaded_networks`
with what the layer holds, and on a difference restores the layer and adds `calc_updown` of each entry's module. So an
entry of ours needs nothing but a name that changes with its content. A layer that shall change in the middle of a
picture gets another module and a wrong memory of what it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch

from ...fusion.fused import FusedLora, Winners
from ...layers.block import Block
from ...layers.key import ModuleKey
from ...layers.weights import LoraWeights
from ..protocol import ShelfFile
from .layers import Layers
from .read import BIAS, Reader
from .write import Writer

OUTDATED = ("nplora",)
"""What a layer holds by its own account when it is to be patched again, also if no network is wanted by then."""


class A1111Model:
    """See Model."""

    def __init__(self, networks: Any) -> None:
        from modules import sd_models

        self._networks = networks
        self._model_data = sd_models.model_data
        self._layers = Layers(self._model_data)
        self._reader = Reader(networks, self._layers)
        self._writer = Writer(networks, self._layers)
        self._applied: list[Any] = []
        self._model: Hashable = None
        self._made: WeakKeyDictionary[FusedLora, Any] = WeakKeyDictionary()
        self._standing: WeakKeyDictionary[FusedLora, Winners] = WeakKeyDictionary()

    @property
    def checkpoint(self) -> str | None:
        """See Model."""
        info = getattr(self._model_data.sd_model, "sd_checkpoint_info", None)
        return info.filename if info else None

    def token(self) -> Hashable:
        """See Model."""
        return id(self._layers.by_name), self._model_data.sd_model.sd_checkpoint_info.filename

    def blocks(self) -> Collection[Block]:
        """See Model."""
        return self._layers.blocks()

    def dtype(self, key: ModuleKey) -> torch.dtype:
        """See Model."""
        return self._layers.dtype(str(key.name).removesuffix(BIAS))

    def load(self, file: ShelfFile) -> LoraWeights:
        """See Model."""
        return self._reader.load(file, self.token())

    def apply(self, fused: Sequence[FusedLora]) -> None:
        """See Model."""
        ours = [self._made.get(lora) or self._network(lora) for lora in fused]
        self.clear()
        self._networks.loaded_networks.extend(ours)
        self._applied = ours
        self._model = self.token()
        for lora in fused:
            self.swap(lora, lora.first_winners())

    def swap(self, fused: FusedLora, winners: Winners) -> None:
        """See Model. Leaves alone a refiner that the host had kept in memory: it takes over without another `apply`."""
        if self.token() != self._model:
            return
        standing = self._standing[fused]
        changed = {str(key.name).removesuffix(BIAS) for key, winner in winners.items() if standing[key] != winner}
        if not changed:
            return
        net = self._made[fused]
        updates = {
            key: fused.update(key, winners) for key in fused.deltas if str(key.name).removesuffix(BIAS) in changed
        }
        made = self._writer.modules(net, updates)
        net.modules.update(made)
        for sd_key in made:
            layer = self._layers.layer(sd_key)[0]
            if getattr(layer, "network_current_names", ()):
                layer.network_current_names = OUTDATED
        self._standing[fused] = winners

    def clear(self) -> None:
        """See Model."""
        loaded = self._networks.loaded_networks
        loaded[:] = [net for net in loaded if net not in self._applied]
        self._applied = []

    def _network(self, lora: FusedLora) -> Any:
        self._made[lora], self._standing[lora] = self._writer.network(lora), lora.first_winners()
        return self._made[lora]
