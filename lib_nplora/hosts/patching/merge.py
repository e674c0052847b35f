"""Exchanges patches that are merged into the weights of a model, some layers at a time.

Forge's loader compares the names of all patches, other patchers the mark of their last change: neither sees an
exchange, so what is merged already is merged anew here, by the host's own functions, and what is not will be by the
host.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

EXCHANGED = " with others"
"""Makes the names of merged patches those of none."""


@dataclass(frozen=True)
class Setters:
    """The host's functions (model, key, weight) that give a parameter another weight.

    put
        A new parameter takes the old one's place.
    copy
        The old one is given the values.
    """

    put: Callable[[Any, str, Tensor], Any]
    copy: Callable[[Any, str, Tensor], Any]

    def set(self, model: Any, key: str, weight: Tensor, in_place: bool) -> None:
        """Give a parameter another weight, by the way that the host took."""
        (self.copy if in_place else self.put)(model, key, weight)


def loader_has(patcher: Any) -> bool:
    """Whether Forge's loader has merged this patcher's patches."""
    return bool(patcher.lora_loader.loaded_hash == str(list(patcher.lora_patches)))


def names(patcher: Any) -> list[Hashable]:
    """Those that Forge's loader tells patches by; none where it is their last change that counts."""
    return list(getattr(patcher, "lora_patches", ()))


def is_last_changed(patcher: Any) -> bool:
    """Whether a patcher that marks its last change has merged its patches."""
    return bool(patcher.model.current_weight_patches_uuid == patcher.patches_uuid)


def replace_by_loader(mine: Any, source: Any, sampled: Any, keys: Collection[str]) -> None:
    """In Forge. See Dialect.replace.

    Others may have merged patches of theirs anew in mid-picture, by names that no patcher has: what is merged now has
    none that any has either, so that the host merges all for its next picture.
    """
    loader = mine.lora_loader
    new = {name: patches for name, patches in source.lora_patches.items() if patches is not mine.lora_patches.get(name)}
    for name, patches in new.items():
        mine.lora_patches[name].update({key: patches[key] for key in keys if key in patches})
    if loader_has(sampled):
        _merge_by_loader(sampled, keys)
    elif loader.loaded_hash and all(str(name) in loader.loaded_hash for name in new):
        _merge_by_loader(sampled, keys)
        loader.loaded_hash = f"{loader.loaded_hash.removesuffix(EXCHANGED)}{EXCHANGED}"
    else:
        loader.loaded_hash = None


def replace_by_patcher(mine: Any, source: Any, sampled: Any, keys: Collection[str], setters: Setters) -> None:
    """Where a patcher merges layer by layer, and marks its last change. See Dialect.replace.

    What the host has not kept is patched at each forward.
    """
    for key in keys:
        exchange(source.patches[key], key, mine.patches, sampled.patches, *_read_at_forward(mine.model, key))
    if not is_last_changed(sampled):
        return
    for key in keys:
        kept = sampled.backup.pop(key, None)
        if kept is None:
            continue
        device = sampled.model.get_parameter(key).device
        setters.set(sampled.model, key, kept.weight, kept.inplace_update)
        sampled.patch_weight_to_device(key, device_to=device)


def exchange(new: list[Any], key: str, *tables: dict[str, list[Any]]) -> None:
    """Put these patches in the place of as many of a parameter's, which others may have added theirs to."""
    for patches in tables:
        patches[key][: len(new)] = new


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


def _read_at_forward(model: Any, key: str) -> list[Any]:
    """The tables that a layer is patched from at each forward: those of the patcher that loaded it, maybe long ago."""
    layer = model.get_submodule(_layer(key))
    functions = [*getattr(layer, "weight_function", ()), *getattr(layer, "bias_function", ())]
    return [function.patches for function in functions if getattr(function, "key", None) == key]


def _layer(key: str) -> str:
    return key.rpartition(".")[0]
