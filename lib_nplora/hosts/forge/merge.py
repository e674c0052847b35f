"""Exchanges patches of a Forge model that are merged into its weights, some layers at a time.

Forge's loader compares the names of all patches, Neo's patcher the mark of their last change: neither sees an exchange,
so what is merged already is merged anew here, by the host's own functions, and what is not will be by the host.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any


def is_merged(patcher: Any) -> bool:
    """Whether the model's weights hold this patcher's patches."""
    if hasattr(patcher, "lora_loader"):
        return bool(patcher.lora_loader.loaded_hash == _names(patcher))
    return bool(patcher.model.current_weight_patches_uuid == patcher.patches_uuid)


def replace_patches(mine: Any, source: Any, sampled: Any, keys: Collection[str]) -> None:
    """Give the parameters `keys` the patches that they have in `source`.

    mine
        The patcher that keeps them.
    source
        One with as many patches, in the same order.
    sampled
        The one that makes the picture: `mine`, or a copy to which others may have added theirs.
    """
    if sampled.model is not mine.model:
        sampled = mine
    if hasattr(mine, "lora_loader"):
        for name, patches in source.lora_patches.items():
            mine.lora_patches[name].update({key: patches[key] for key in keys if key in patches})
        if is_merged(sampled):
            _merge_by_loader(sampled, keys)
        else:
            mine.lora_loader.loaded_hash = None
    else:
        source.pinned = set()  # The host unpins what a patcher knows of, for all its copies, when that one dies.
        for key in keys:
            new = source.patches[key]
            for patches in (mine.patches, sampled.patches, *_read_at_forward(mine.model, key)):
                patches[key][: len(new)] = new
        if is_merged(sampled):
            _merge_by_patcher(sampled, keys)


def _names(patcher: Any) -> str:
    return str(list(patcher.lora_patches))


def _merge_by_loader(patcher: Any, keys: Collection[str]) -> None:
    """Forge's loader restores all that it has kept, then merges all patches: it is shown these layers alone."""
    loader = patcher.lora_loader
    layers = {_layer(key) for key in keys}
    modules = {patcher.model.get_submodule(layer) for layer in layers}
    patches = {
        name: {key: found for key, found in given.items() if _layer(key) in layers}
        for name, given in patcher.lora_patches.items()
    }
    kept, online, merged = loader.backup, loader.online_backup, loader.loaded_hash
    loader.backup = {key: weight for key, weight in kept.items() if _layer(key) in layers}
    loader.online_backup = [module for module in online if module in modules]
    loader.loaded_hash = None
    try:
        loader.refresh(patches, offload_device=patcher.offload_device, force_refresh=True)
        loader.loaded_hash = merged
    finally:
        loader.backup.update({key: weight for key, weight in kept.items() if _layer(key) not in layers})
        loader.online_backup.extend(module for module in online if module not in modules)


def _merge_by_patcher(patcher: Any, keys: Collection[str]) -> None:
    """Neo's patcher merges layer by layer. What it has not kept is patched at each forward."""
    utils = importlib.import_module("backend.utils")
    for key in keys:
        kept = patcher.backup.pop(key, None)
        if kept is None:
            continue
        device = patcher.model.get_parameter(key).device
        (utils.copy_to_param if kept.inplace_update else utils.set_attr)(patcher.model, key, kept.weight)
        patcher.patch_weight_to_device(key, device_to=device)


def _read_at_forward(model: Any, key: str) -> list[Any]:
    """The tables that a layer is patched from at each forward: those of the patcher that loaded it, maybe long ago."""
    layer = model.get_submodule(_layer(key))
    functions = [*getattr(layer, "weight_function", ()), *getattr(layer, "bias_function", ())]
    return [function.patches for function in functions if getattr(function, "key", None) == key]


def _layer(key: str) -> str:
    return key.rpartition(".")[0]
