"""What reForge and Forge Classic have in common: the model code of the first Forge, in `ldm_patched`."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Hashable, Mapping
from typing import Any, cast

from torch import Tensor

from ...layers.place import Part
from .dialect import Patches
from .merge import Setters

USED = {
    "ldm_patched.modules.lora": ("load_lora", "model_lora_keys_unet", "model_lora_keys_clip"),
    "ldm_patched.modules.utils": ("load_torch_file", "copy_to_param"),
}
"""What both must have."""


class LdmPatched:
    """The part of a Dialect that both share: patches know no file, and none is applied at each forward."""

    def __init__(self, put: str) -> None:
        self._lora = importlib.import_module("ldm_patched.modules.lora")
        self._utils = importlib.import_module("ldm_patched.modules.utils")
        self._setters = Setters(getattr(self._utils, put), self._utils.copy_to_param)

    def read(self, path: str) -> Mapping[str, Tensor]:
        """See Dialect."""
        return cast("Mapping[str, Tensor]", self._utils.load_torch_file(path, safe_load=True))

    def names(self, part: Part, model: Any) -> dict[str, Hashable]:
        """See Dialect. (The default argument of the host's functions is shared: they get one of their own.)"""
        make = self._lora.model_lora_keys_unet if part == "unet" else self._lora.model_lora_keys_clip
        return cast("dict[str, Hashable]", make(model, {}))

    def add(self, patcher: Any, patches: Patches, filename: str, online: bool) -> Collection[Hashable]:
        """See Dialect."""
        return cast("Collection[Hashable]", patcher.add_patches(patches, 1.0))

    def check(self) -> None:
        """See Dialect."""

    def is_online(self, unet: Any) -> bool:
        """See Dialect."""
        return False
