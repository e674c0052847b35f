"""Forge and Forge Neo: fusions go in as patches of the model's UNet and text encoder.

The host keeps three sets of patchers on the model: the originals, those after its own LoRAs (`base` here), and those of
the picture at hand. A fusion is added to clones of the base, and the base is remembered, because the host does not
rebuild it while its own LoRAs stay the same. Reading a source asks the patch that the host's own `load_lora` returns;
writing a fusion hands an ordinary LoRA state dict to the same function, so that no dialect has to be known there.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import FileError, HostError
from ..lowrank import LowRankDelta, exact_math
from ..weights import FusedLora, LoraWeights, ModuleKey, Part
from .lora_list import LoraList, check_fits, check_matched, module_names
from .protocol import LoraFile

STATE = "_nplora"


def detect() -> ForgeHost | None:
    """The adapter, if the built-in LoRA extension patches a UNet and a text encoder that can be cloned."""
    networks = sys.modules.get("networks")
    return ForgeHost(networks) if hasattr(networks, "load_lora_for_models") else None


@dataclass(frozen=True, eq=False)
class _Applied:
    """What was done to a model: `mine` stands where `base` stood."""

    base: Any
    mine: Any
    fingerprints: tuple[str, ...]


class ForgeHost:
    """See Host."""

    name = "Forge"

    def __init__(self, networks: Any) -> None:
        from backend.args import dynamic_args
        from backend.utils import load_torch_file
        from modules import sd_models

        self._patcher = importlib.import_module("backend.patcher.lora")
        self._dynamic_args = dynamic_args
        self._read = load_torch_file
        self._model_data = sd_models.model_data
        self.resolve = LoraList(networks).resolve

    def model_token(self) -> Hashable:
        model = self._model_data.sd_model
        return id(model.forge_objects_original), model.sd_checkpoint_info.filename

    def load(self, file: LoraFile) -> LoraWeights:
        try:
            state = dict(self._read(file.path, safe_load=True))
        except Exception as error:
            raise FileError(f"'{file.name}' cannot be read: {error}") from error
        model = self._model_data.sd_model.forge_objects_original
        deltas: dict[ModuleKey, LowRankDelta] = {}
        with exact_math():
            for part, patcher in _parts(model):
                patches, state = self._patcher.load_lora(state, self._names(part, patcher))
                weights = dict(_model(part, patcher).named_parameters())
                for target, patch in patches.items():
                    delta = _delta(file, patch)
                    check_fits(file, _fits(delta, target, weights), str(target), delta)
                    deltas[ModuleKey(target, part)] = delta
        unmatched = tuple(sorted(module_names(state)))
        check_matched(file, len(deltas), len(unmatched))
        return LoraWeights(file.name, file.stamp, deltas, unmatched)

    def apply(self, fused: Sequence[FusedLora]) -> None:
        model = self._model_data.sd_model
        fingerprints = tuple(lora.fingerprint for lora in fused)
        applied: _Applied | None = getattr(model, STATE, None)
        current = model.forge_objects_after_applying_lora
        base = applied.base if applied and current is applied.mine else current
        if applied is None or applied.base is not base or applied.fingerprints != fingerprints:
            applied = _Applied(base, self._patched(base, fused), fingerprints)
        setattr(model, STATE, applied)
        self._install(model, applied.mine)

    def clear(self) -> None:
        model = self._model_data.sd_model
        applied: _Applied | None = getattr(model, STATE, None)
        if applied and model.forge_objects_after_applying_lora is applied.mine:
            self._install(model, applied.base)

    def _install(self, model: Any, objects: Any) -> None:
        """The host reads the second on its way to the picture, and the first while it encodes a hires prompt."""
        model.forge_objects.unet, model.forge_objects.clip = objects.unet, objects.clip
        model.forge_objects_after_applying_lora = objects

    def _patched(self, base: Any, fused: Sequence[FusedLora]) -> Any:
        if _get(self._dynamic_args, "nunchaku"):
            raise HostError("a Nunchaku model takes whole LoRA files only, so nothing can be fused into it")
        mine = base.shallow_copy()
        for lora in fused:
            for part, patcher in _parts(mine):
                deltas = {key.name: delta for key, delta in lora.deltas.items() if key.part == part}
                if deltas:
                    filename = f"nplora://{lora.title}/{lora.fingerprint}"
                    patched = self._with_patches(part, patcher, deltas, filename, self._online(base.unet))
                    setattr(mine, _ATTRIBUTE[part], patched)
        return mine

    def _with_patches(
        self, part: Part, patcher: Any, deltas: dict[Hashable, LowRankDelta], filename: str, online: bool
    ) -> Any:
        names = self._names(part, patcher)
        name_of = {target: name for name, target in names.items()}
        state: dict[str, torch.Tensor] = {}
        with exact_math():
            for target, delta in deltas.items():
                state.update(_state_dict(name_of[target], delta.balanced()))
        patches, left = self._patcher.load_lora(state, names)
        clone = patcher.clone()
        added = clone.add_patches(filename=filename, patches=patches, strength_patch=1.0, online_mode=online)
        if left or len(added) != len(deltas):
            raise HostError(f"this WebUI took only {len(added)} of {len(deltas)} fused layers, so none is applied")
        return clone

    def _names(self, part: Part, patcher: Any) -> dict[str, Hashable]:
        """The host's own table from names in LoRA files to the model's keys. (Its default argument is shared.)"""
        make = self._patcher.model_lora_keys_unet if part == "unet" else self._patcher.model_lora_keys_clip
        names: dict[str, Hashable] = make(_model(part, patcher), {})
        return names

    def _online(self, unet: Any) -> bool:
        """Whether to patch at each forward: asked for, and the weights are not plain floats (as Forge decides)."""
        plain = (torch.float32, torch.float16, torch.bfloat16)
        storage = getattr(unet.model, "storage_dtype", torch.float32)
        return bool(_get(self._dynamic_args, "online_lora")) and storage not in plain


_ATTRIBUTE: dict[Part, str] = {"unet": "unet", "te": "clip"}


def _parts(objects: Any) -> list[tuple[Part, Any]]:
    """The patchers of a model that has them, UNet first as in the host."""
    return [(part, getattr(objects, name)) for part, name in _ATTRIBUTE.items() if getattr(objects, name) is not None]


def _model(part: Part, patcher: Any) -> Any:
    return patcher.model if part == "unet" else patcher.cond_stage_model


def _get(dynamic_args: Any, name: str) -> Any:
    """Forge keeps a dict, Neo an object."""
    return dynamic_args.get(name) if isinstance(dynamic_args, dict) else getattr(dynamic_args, name, None)


def _delta(file: LoraFile, patch: Any) -> LowRankDelta:
    """The patch's update, exactly, from its factors: a tuple (kind, fields) in Forge, an adapter object in Neo."""
    kind, fields = patch if isinstance(patch, tuple) else (patch.name, patch.weights)
    if kind != "lora" or any(field is not None for field in fields[4:]):
        kind = "DoRA" if kind == "lora" else kind
        raise FileError(f"'{file.name}' holds {kind} modules; only LoRA and LoCon can be fused")
    up, down, alpha, mid = fields[:4]
    return LowRankDelta.from_factors(up, down, mid, 1.0 if alpha is None else float(alpha) / down.shape[0])


def _fits(delta: LowRankDelta, target: Any, weights: dict[str, torch.Tensor]) -> bool:
    key, offset = (target, None) if isinstance(target, str) else target[:2]
    rows = offset[2] if offset else None
    weight = weights.get(key)
    if weight is None:
        return False
    if not weight.is_floating_point():
        return True
    return delta.shape == (rows or weight.shape[0], weight.shape[1:].numel())


def _state_dict(name: str, delta: LowRankDelta) -> dict[str, torch.Tensor]:
    up, down = delta.factors()
    return {
        f"{name}.lora_up.weight": up,
        f"{name}.lora_down.weight": down,
        f"{name}.alpha": torch.tensor(float(delta.rank)),
    }
