"""Hands fusions to Forge as patches.

An ordinary LoRA state dict goes through the host's own `load_lora`, so that no dialect has to be known here; what has
no factors goes in as a `diff` patch, which every dialect takes, or as a nested one that is made when it is merged.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import HostError
from ...fusion.fused import FusedLora, Winners
from ...layers.key import ModuleKey
from ...layers.place import Part
from ...maths.delta import Delta, placed, total
from ...maths.dense import DenseDelta
from ...maths.lowrank import LowRankDelta, exact_math
from ...maths.remade import Remade
from .dialect import Dialect
from .later import Later
from .parts import ATTRIBUTE, KeyTables, model_of, patchers
from .target import Target


class Writer:
    """Makes patched copies of a model's patchers."""

    def __init__(self, dialect: Dialect, names: KeyTables) -> None:
        self._dialect = dialect
        self._names = names

    def patched(
        self,
        base: Any,
        fused: Sequence[FusedLora],
        winners: Mapping[str, Winners],
        number: int,
        layers: Container[ModuleKey] | None = None,
    ) -> Any:
        """A copy of `base` with these fusions, or with what they do to these layers."""
        self._dialect.check()
        mine = base.shallow_copy()
        for lora in fused:
            for part, patcher in patchers(mine):
                deltas = {
                    key: lora.update(key, winners[lora.fingerprint])
                    for key in lora.deltas
                    if key.part == part and (layers is None or key.layer in layers)
                }
                if deltas:
                    filename = f"nplora://{lora.title}/{lora.fingerprint}" + (f"/{number}" if lora.schedule else "")
                    patched = self._with_patches(part, patcher, deltas, filename, self._dialect.is_online(base.unet))
                    setattr(mine, ATTRIBUTE[part], patched)
        return mine

    def _with_patches(
        self, part: Part, patcher: Any, deltas: Mapping[ModuleKey, Delta], filename: str, online: bool
    ) -> Any:
        names = self._names.of(part, patcher)
        name_of = {target: name for name, target in names.items()}
        patches: dict[Hashable, Any] = {}
        state: dict[str, Tensor] = {}
        with exact_math():
            model = model_of(part, patcher)
            targets = _by_target(deltas, name_of, model)
            for target, delta in targets.items():
                if online and isinstance(delta, Remade):
                    delta = delta.kept(model.get_parameter(Target.of(part, target).key).dtype)
                if isinstance(delta, Remade):
                    patches[target] = [Later(delta)]
                elif isinstance(delta, DenseDelta):
                    patches[target] = ("diff", (delta.tensor(),))
                else:
                    state.update(_state_dict(name_of[target], delta.balanced()))
        if patches and online and hasattr(patcher, "_process_online_loras"):
            raise HostError("this model takes factors only while LoRAs are applied on the fly: switch that off")
        factors, left = self._dialect.load(state, {name_of[target]: target for target in targets if target in name_of})
        patches.update(factors)
        clone = patcher.clone()
        added = self._dialect.add(clone, patches, filename, online)
        if left or len(added) != len(patches):
            raise HostError(f"this WebUI took only {len(added)} of {len(patches)} fused layers, so none is applied")
        return clone


def _by_target(deltas: Mapping[ModuleKey, Delta], name_of: Mapping[Hashable, str], model: Any) -> dict[Hashable, Delta]:
    """The deltas by the host's targets; factors for a slice that has no name, as an update of the whole layer."""
    found: dict[Hashable, Delta] = {}
    for key, delta in deltas.items():
        target: Hashable = key.name
        if key.rows:
            start, stop = key.rows
            target = key.name, (0, start, stop - start)
            if isinstance(delta, LowRankDelta) and target not in name_of:
                target, delta = key.name, placed(delta, start, model.get_parameter(key.name).shape[0])
        found[target] = total([found[target], delta]) if target in found else delta
    return found


def _state_dict(name: str, delta: LowRankDelta) -> dict[str, Tensor]:
    up, down = delta.factors()
    return {
        f"{name}.lora_up.weight": up,
        f"{name}.lora_down.weight": down,
        f"{name}.alpha": torch.tensor(float(delta.rank)),
    }
