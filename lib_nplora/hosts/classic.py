"""Forge Classic: the first Forge, whose patchers merge all that they hold when the model is loaded."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Collection, Hashable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch import Tensor

from ..errors import HostError
from . import lora_list
from .detection import is_loaded, is_there, lacks_nothing
from .patching import ldm_patched, merge
from .patching.dialect import Patches
from .patching.target import Target
from .protocol import Host

USED = {
    "networks": ("load_lora_for_models", *lora_list.USED),
    "ldm_patched.modules.lora": ldm_patched.USED["ldm_patched.modules.lora"],
    "ldm_patched.modules.model_management": ("current_loaded_models",),
    "ldm_patched.modules.model_patcher.ModelPatcher": ("add_patches", "calculate_weight"),
    "ldm_patched.modules.utils": (*ldm_patched.USED["ldm_patched.modules.utils"], "set_attr"),
    "modules.sd_models": ("model_data",),
}


def detect() -> Host | None:
    """The host, if its patchers calculate weights themselves. Raises HostError."""
    there = is_there("networks", "load_lora_for_models") and is_loaded("ldm_patched.modules.lora")
    if not there or is_loaded("ldm_patched.modules.weight_adapter"):
        return None
    lacks_nothing(USED)
    load_lora = sys.modules["ldm_patched.modules.lora"].load_lora
    if is_there("modules.shared", "cached_lora_hash") or len(inspect.signature(load_lora).parameters) != 2:
        raise HostError("this Forge Classic keeps its LoRAs in a newer way than NP-LoRA knows (that of February 2025)")
    from .patching.model import ForgeModel

    networks = sys.modules["networks"]
    return Host("Forge Classic", ForgeModel(Classic()), lora_list.LoraList(networks))


class Classic(ldm_patched.LdmPatched):
    """See Dialect."""

    def __init__(self) -> None:
        super().__init__(put="set_attr")
        self._model_management = importlib.import_module("ldm_patched.modules.model_management")

    def renamed(self, state: dict[str, Tensor], objects: Any) -> dict[str, Tensor]:
        """See Dialect."""
        return state

    def load(self, state: dict[str, Tensor], names: Mapping[str, Hashable]) -> tuple[Patches, dict[str, Tensor]]:
        """See Dialect. Raises HostError for a DoRA, of which the host would take the factors alone."""
        patches, left = self._lora.load_lora(state, names)
        if any(f"{name}.dora_scale" in left for name, target in names.items() if target in patches):
            raise HostError("it is a DoRA, in a format that this WebUI does not read: use a plain LoRA")
        return patches, left

    def merged(self, patcher: Any, patch: Any, weight: Tensor, target: Target) -> Tensor:
        """See Dialect. The host prints what fails, and leaves the weight alone."""
        with redirect_stdout(StringIO()) as printed:
            merged: Tensor = patcher.calculate_weight([(1.0, patch, 1.0)], weight, target.key)
        for line in printed.getvalue().splitlines():
            if line.startswith(("ERROR", "WARNING")):
                raise RuntimeError(line)
        return merged

    def kept(self, patcher: Any, key: str) -> Any:
        """See Dialect. Each patcher keeps what it has replaced itself."""
        backups = (loaded.backup.get(key) for loaded in self._loaded() if loaded.model is patcher.model)
        return next((backup for backup in backups if backup is not None), None)

    def is_merged(self, patcher: Any) -> bool:
        """See Dialect."""
        return any(loaded is patcher for loaded in self._loaded())

    def replace(self, mine: Any, source: Any, sampled: Any, keys: Collection[str]) -> None:
        """See Dialect."""
        if sampled.model is not mine.model:
            sampled = mine
        for key in keys:
            merge.exchange(source.patches[key], key, mine.patches, sampled.patches)
            if self.is_merged(sampled):
                self._merge(sampled, key)

    def _merge(self, patcher: Any, key: str) -> None:
        """As the host does, for one parameter alone."""
        device = patcher.model.get_parameter(key).device
        kept = patcher.backup[key]
        weight = patcher.calculate_weight(patcher.patches[key], kept.to(device, torch.float32, copy=True), key)
        self._setters.set(patcher.model, key, weight.to(kept.dtype), patcher.weight_inplace_update)

    def _loaded(self) -> list[Any]:
        """The patchers whose models are in use."""
        return [loaded.model for loaded in self._model_management.current_loaded_models]
