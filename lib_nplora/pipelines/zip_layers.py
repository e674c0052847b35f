"""Which layers of a pair run beside a model's, and which of them have mergers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ..hosts.diffusers import Piece, PipelineModel
from ..hosts.inputs import CONVOLUTIONS
from ..layers.key import ModuleKey
from ..layers.weights import LoraWeights
from ..maths.delta import factored, placed
from .beside import Merger, Part, Side

Scope = Literal["attention", "all"]
"""The layers that have mergers: those of attention, as in the paper, or all whose columns can be scaled."""


def mergers_of(model: PipelineModel, content: LoraWeights, style: LoraWeights, scope: Scope) -> dict[ModuleKey, Merger]:
    """Factors that change nothing yet, for each layer in the scope that both hold."""
    widths = {key.layer: content.deltas[key].shape[1] for key in content.deltas if runs(model, key)}
    shared = dict.fromkeys(key.layer for key in style.deltas if key.layer in widths)
    return {
        layer: Merger.ones(widths[layer], model.pieces(str(layer.name))[0].parameter)
        for layer in shared
        if scope == "all" or layer.place.is_attention
    }


def runs(model: PipelineModel, key: ModuleKey) -> bool:
    """Whether the update of a layer can run beside it."""
    return key.part == "unet" and all(
        isinstance(piece.module, (nn.Linear, *CONVOLUTIONS))
        and piece.leaf == "weight"
        and getattr(piece.module, "groups", 1) == 1
        for piece in model.pieces(str(key.name))
    )


def parts_of(
    model: PipelineModel, loras: Mapping[Side, LoraWeights], mergers: Mapping[ModuleKey, Merger]
) -> dict[nn.Module, list[Part]]:
    """Module -> what runs beside it."""
    parts: dict[nn.Module, list[Part]] = {}
    for side, lora in loras.items():
        for key in lora.deltas:
            if runs(model, key):
                merger = mergers[key.layer].of(side) if key.layer in mergers else None
                for piece in model.pieces(str(key.name)):
                    if part := _part(piece, side, lora, key, merger):
                        parts.setdefault(piece.module, []).append(part)
    return parts


def _part(piece: Piece, side: Side, lora: LoraWeights, key: ModuleKey, merger: Tensor | None) -> Part | None:
    """What an update of a layer does in the rows of one of its pieces; None if nothing."""
    piece.check()
    first = key.rows[0] if key.rows else 0
    delta = factored(lora.deltas[key])
    start, stop = max(first, piece.start), min(first + delta.shape[0], piece.stop)
    if start >= stop:
        return None
    own = factored(placed(delta.rows(start - first, stop - first), start - piece.start, piece.stop - piece.start))
    weight = piece.parameter
    exact = torch.promote_types(weight.dtype, torch.float32)
    return Part(side, own.up.to(weight.device, weight.dtype), own.down.to(weight.device, exact), merger)
