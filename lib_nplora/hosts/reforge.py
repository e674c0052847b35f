"""reForge: Forge's first model code with newer patches, which know how to calculate themselves."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Hashable, Mapping
from typing import Any

from torch import Tensor

from . import lora_list
from .detection import is_loaded, is_there, lacks_nothing
from .patching import ldm_patched, merge
from .patching.dialect import Patches
from .patching.target import Target
from .protocol import Host

USED = {
    "networks": ("load_lora_for_models", *lora_list.USED),
    "ldm_patched.modules.lora": (*ldm_patched.USED["ldm_patched.modules.lora"], "calculate_weight"),
    "ldm_patched.modules.lora_convert": ("convert_lora",),
    "ldm_patched.modules.utils": (*ldm_patched.USED["ldm_patched.modules.utils"], "set_attr_param"),
    "modules.sd_models": ("model_data",),
}


def detect() -> Host | None:
    """The host, if its patches are of the newer sort. Raises HostError."""
    if not (is_there("networks", "load_lora_for_models") and is_loaded("ldm_patched.modules.weight_adapter")):
        return None
    lacks_nothing(USED)
    from .patching.model import ForgeModel

    networks = sys.modules["networks"]
    return Host("reForge", ForgeModel(ReForge()), lora_list.LoraList(networks))


class ReForge(ldm_patched.LdmPatched):
    """See Dialect."""

    def __init__(self) -> None:
        super().__init__(put="set_attr_param")
        self._lora_convert = importlib.import_module("ldm_patched.modules.lora_convert")

    def renamed(self, state: dict[str, Tensor], objects: Any) -> dict[str, Tensor]:
        """See Dialect."""
        renamed: dict[str, Tensor] = self._lora_convert.convert_lora(state)
        return renamed

    def load(self, state: dict[str, Tensor], names: Mapping[str, Hashable]) -> tuple[Patches, dict[str, Tensor]]:
        """See Dialect. The host does not tell what is left: it is what it has not read."""
        read = _Read(state)
        patches: Patches = self._lora.load_lora(read, names, log_missing=False)
        return patches, {name: tensor for name, tensor in state.items() if name not in read.names}

    def merged(self, patcher: Any, patch: Any, weight: Tensor, target: Target) -> Tensor:
        """See Dialect."""
        merged: Tensor = self._lora.calculate_weight(
            [(1.0, patch, 1.0, None, target.change)], weight, target.key, intermediate_dtype=weight.dtype
        )
        return merged

    def kept(self, patcher: Any, key: str) -> Any:
        """See Dialect."""
        return getattr(patcher.backup.get(key), "weight", None)

    def is_merged(self, patcher: Any) -> bool:
        """See Dialect."""
        return merge.is_last_changed(patcher)

    def replace(self, mine: Any, source: Any, sampled: Any, keys: Collection[str]) -> None:
        """See Dialect."""
        merge.replace_by_patcher(mine, source, sampled if sampled.model is mine.model else mine, keys, self._setters)


class _Read(dict[str, Tensor]):
    """A file's tensors. `names` are those of the ones that were taken out."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__(state)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        tensor = super().__getitem__(name)
        self.names.add(name)
        return tensor

    def get(self, name: str, default: Any = None) -> Any:
        tensor = super().get(name, default)
        if name in self:
            self.names.add(name)
        return tensor
