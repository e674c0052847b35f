"""The model of every Forge: fusions go in as patches of its UNet and text encoder.

The host keeps three sets of patchers on the model: the originals, those after its own LoRAs (`base` here), and those of
the picture at hand. A fusion is added to clones of the base, and the base is remembered, because the host does not
rebuild it while its own LoRAs stay the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...fusion.fused import FusedLora, Winners
from ...layers.block import Block
from ...layers.key import ModuleKey
from ...layers.weights import LoraWeights
from ..protocol import ShelfFile
from . import merge
from .dialect import Dialect
from .parts import KeyTables, blocks, dtype, model_patcher, patchers
from .read import Reader
from .write import Writer

STATE = "_nplora"
"""Attribute of the host's model that holds what was done to it."""


@dataclass(frozen=True, eq=False)
class _Applied:
    """What was done to a model: `mine` stands where `base` stood.

    names
        Those of the base's patches when it was copied: others may change these, and name them anew.
    winners
        Who wins the contested layers of each fusion by now.
    number
        Tells it from others of the same fusions, whose contested layers the host may have merged at other winners.
    """

    base: Any
    mine: Any
    fused: Sequence[FusedLora]
    names: Sequence[Hashable]
    winners: dict[str, Winners]
    number: int

    @property
    def fingerprints(self) -> list[str]:
        return [lora.fingerprint for lora in self.fused]


class ForgeModel:
    """See Model."""

    def __init__(self, dialect: Dialect) -> None:
        from modules import sd_models

        names = KeyTables(dialect)
        self._dialect = dialect
        self._model_data = sd_models.model_data
        self._reader = Reader(dialect, names, self._model_data)
        self._writer = Writer(dialect, names)
        self._count = itertools.count()

    @property
    def checkpoint(self) -> str | None:
        """See Model."""
        info = getattr(self._model_data.sd_model, "sd_checkpoint_info", None)
        return info.filename if info else None

    def token(self) -> Hashable:
        """See Model."""
        model = self._model_data.sd_model
        return id(model.forge_objects_original), model.sd_checkpoint_info.filename

    def blocks(self) -> Collection[Block]:
        """See Model."""
        return blocks(self._model_data.sd_model.forge_objects_original)

    def dtype(self, key: ModuleKey) -> torch.dtype:
        """See Model."""
        return dtype(self._model_data.sd_model.forge_objects_original, key)

    def load(self, file: ShelfFile) -> LoraWeights:
        """See Model."""
        return self._reader.load(file, self.token())

    def apply(self, fused: Sequence[FusedLora]) -> None:
        """See Model."""
        model = self._model_data.sd_model
        applied: _Applied | None = getattr(model, STATE, None)
        current = model.forge_objects_after_applying_lora
        base = applied.base if applied and current is applied.mine else current
        names = _names(base)
        if (
            applied is None
            or applied.base is not base
            or applied.names != names
            or applied.fingerprints != [lora.fingerprint for lora in fused]
        ):
            winners = {lora.fingerprint: lora.first_winners() for lora in fused}
            number = next(self._count)
            mine = self._writer.patched(base, fused, winners, number)
            applied = _Applied(base, mine, fused, names, winners, number)
        setattr(model, STATE, applied)
        self._install(model, applied.mine)
        if not self._dialect.is_merged(applied.mine.unet):
            for lora in fused:
                self.swap(lora, lora.first_winners())

    def swap(self, fused: FusedLora, winners: Winners) -> None:
        """See Model."""
        model = self._model_data.sd_model
        applied: _Applied = getattr(model, STATE)
        standing = applied.winners[fused.fingerprint]
        layers = {key.layer for key, winner in winners.items() if standing[key] != winner}
        if layers:
            now = {**applied.winners, fused.fingerprint: winners}
            self._dialect.replace(
                applied.mine.unet,
                self._writer.patched(applied.base, applied.fused, now, applied.number, layers).unet,
                model.forge_objects.unet,
                {str(layer.name) for layer in layers},
            )
            applied.winners.update(now)

    def clear(self) -> None:
        """See Model."""
        model = self._model_data.sd_model
        applied: _Applied | None = getattr(model, STATE, None)
        if applied and model.forge_objects_after_applying_lora is applied.mine:
            self._install(model, applied.base)

    def _install(self, model: Any, objects: Any) -> None:
        """Put these patchers where the host takes those of the picture from.

        It reads `after_applying_lora` on its way to the picture, and `forge_objects` while it encodes a hires prompt.
        """
        model.forge_objects.unet, model.forge_objects.clip = objects.unet, objects.clip
        model.forge_objects_after_applying_lora = objects


def _names(objects: Any) -> list[Hashable]:
    return [name for _, patcher in patchers(objects) for name in merge.names(model_patcher(patcher))]
