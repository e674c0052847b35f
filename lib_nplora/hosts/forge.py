"""Forge and Forge Neo, whose model code stands in `backend`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Hashable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from ..errors import HostError
from ..layers.place import Part
from . import lora_list
from .detection import is_loaded, is_there, lacks_nothing
from .patching import merge
from .patching.dialect import Patches
from .patching.target import Target
from .protocol import Host

USED = {
    "networks": ("load_lora_for_models", *lora_list.USED),
    "backend.args": ("dynamic_args",),
    "backend.utils": ("load_torch_file", "set_attr", "copy_to_param"),
    "backend.patcher.lora": ("load_lora", "merge_lora_to_weight", "model_lora_keys_unet", "model_lora_keys_clip"),
    "modules.sd_models": ("model_data",),
}


def detect() -> Host | None:
    """The host, if its built-in LoRA extension patches a UNet and a text encoder. Raises HostError."""
    if not (is_there("networks", "load_lora_for_models") and is_loaded("backend.patcher.lora")):
        return None
    lacks_nothing(USED)
    from .patching.model import ForgeModel

    networks = sys.modules["networks"]
    return Host("Forge", ForgeModel(Backend(networks)), lora_list.LoraList(networks))


class Backend:
    """See Dialect. Neo's patches are objects with a `calculate_weight`, Forge's are tuples."""

    def __init__(self, networks: Any) -> None:
        from backend.args import dynamic_args
        from backend.utils import copy_to_param, load_torch_file, set_attr

        self._networks = networks
        self._patching = importlib.import_module("backend.patcher.lora")
        self._dynamic_args = dynamic_args
        self._read = load_torch_file
        self._setters = merge.Setters(set_attr, copy_to_param)

    def read(self, path: str) -> Mapping[str, Tensor]:
        """See Dialect."""
        return cast("Mapping[str, Tensor]", self._read(path, safe_load=True))

    def renamed(self, state: dict[str, Tensor], objects: Any) -> dict[str, Tensor]:
        """See Dialect. As Neo does before it looks for a file's layers."""
        if hasattr(self._networks, "state_dict_prefix_replace"):
            state = self._networks.state_dict_prefix_replace(state, {"lora_unet__": "lora_unet_"})
        if type(objects.unet.model.diffusion_model).__name__ == "Anima" and hasattr(self._networks, "process_anima"):
            self._networks.process_anima(state)
        return state

    def names(self, part: Part, model: Any) -> dict[str, Hashable]:
        """See Dialect. (The default argument of the host's functions is shared: they get one of their own.)"""
        make = self._patching.model_lora_keys_unet if part == "unet" else self._patching.model_lora_keys_clip
        return cast("dict[str, Hashable]", make(model, {}))

    def load(self, state: dict[str, Tensor], names: Mapping[str, Hashable]) -> tuple[Patches, dict[str, Tensor]]:
        """See Dialect."""
        return cast("tuple[Patches, dict[str, Tensor]]", self._patching.load_lora(state, names))

    def add(self, patcher: Any, patches: Patches, filename: str, online: bool) -> Collection[Hashable]:
        """See Dialect."""
        added = patcher.add_patches(filename=filename, patches=patches, strength_patch=1.0, online_mode=online)
        return cast("Collection[Hashable]", added)

    def check(self) -> None:
        """See Dialect."""
        if self._switch("nunchaku"):
            raise HostError("a Nunchaku model takes whole LoRA files only, so nothing can be fused into it")

    def is_online(self, unet: Any) -> bool:
        """See Dialect. The host's switch decides, in Forge for quantised weights only."""
        asked = bool(self._switch("online_lora"))
        if hasattr(unet, "use_online_lora"):
            return asked
        plain = (torch.float32, torch.float16, torch.bfloat16)
        return asked and getattr(unet.model, "storage_dtype", torch.float32) not in plain

    def merged(self, patcher: Any, patch: Any, weight: Tensor, target: Target) -> Tensor:
        """See Dialect."""
        merged: Tensor = self._patching.merge_lora_to_weight(
            [(1.0, patch, 1.0, None, target.change)], weight, target.key, computation_dtype=weight.dtype
        )
        return merged

    def kept(self, patcher: Any, key: str) -> Any:
        """See Dialect."""
        backup = getattr(patcher, "lora_loader", patcher).backup.get(key)
        return getattr(backup, "weight", backup)

    def is_merged(self, patcher: Any) -> bool:
        """See Dialect."""
        return merge.loader_has(patcher) if hasattr(patcher, "lora_loader") else merge.is_last_changed(patcher)

    def replace(self, mine: Any, source: Any, sampled: Any, keys: Collection[str]) -> None:
        """See Dialect."""
        if sampled.model is not mine.model:
            sampled = mine
        if hasattr(mine, "lora_loader"):
            merge.replace_by_loader(mine, source, sampled, keys)
        else:
            source.pinned = set()  # The host unpins what a patcher knows of, for all its copies, when that one dies.
            merge.replace_by_patcher(mine, source, sampled, keys, self._setters)

    def _switch(self, name: str) -> Any:
        """One of the host's switches, which Forge keeps in a dict, Neo in an object; None if it has no such switch."""
        if isinstance(self._dynamic_args, dict):
            return self._dynamic_args.get(name)
        return getattr(self._dynamic_args, name, None)
