"""Which of two LoRAs is the stronger, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..jobs.pair import FileFusion
from ..layers.block import Block
from ..request.request import FusionRequest
from .said import Said, Value, say

UNEVEN = 1.5
"""How much stronger one side must be for it to be told."""


def stronger(fusion: FileFusion, request: FusionRequest) -> Said | None:
    """Which side is the stronger, and what balancing does about it, or would do."""
    rows = fusion.interference
    asked = request.method.weighed_by(request.values)
    found: dict[Block, list[_Scaled]] = {}
    for key, row in rows.items():
        weights = fusion.summary.layers[key].weights if asked else (1.0, 1.0)
        before = (row.content_energy / weights[0] ** 2, row.style_energy / weights[1] ** 2)
        found.setdefault(key.place.block, []).append(_Scaled(before, weights if asked else row.meeting))
    layers = [layer for group in found.values() for layer in group]
    content, style = (math.sqrt(sum(layer.before[side] for layer in layers)) for side in (0, 1))
    side, times = (0, content / style) if content >= style else (1, style / content)
    scaled = {block: _average(group, side) for block, group in found.items()}
    most = min(scaled, key=lambda block: scaled[block])
    told = say("{weight} on average", weight=f"{_average(layers, side):.2g}")
    if len(scaled) > 1 and max(scaled.values()) > 1.05 * scaled[most]:
        told = say("{average}; most in {block} ({weight})", average=told, block=str(most), weight=f"{scaled[most]:.2g}")
    if asked:
        by: dict[str, Value] = {"setting": asked, "told": told}
        return (
            say("{setting}: the style is scaled to {told}.", **by)
            if side
            else say("{setting}: the content is scaled to {told}.", **by)
        )
    if times <= UNEVEN:
        return None
    remedy = say("lower its weight if the content is lost") if side else say("lower its weight if the style is lost")
    if setting := request.method.would_weigh:
        remedy = say("{remedy}, or try {setting}, which scales it to {told}", remedy=remedy, setting=setting, told=told)
    values: dict[str, Value] = {"times": f"{times:.2g}", "remedy": remedy}
    return (
        say("The style is {times} x as strong as the content: {remedy}.", **values)
        if side
        else say("The content is {times} x as strong as the style: {remedy}.", **values)
    )


@dataclass(frozen=True)
class _Scaled:
    """A layer whose sides are multiplied: their energies before, and the weights."""

    before: tuple[float, float]
    weights: tuple[float, float]


def _average(layers: Iterable[_Scaled], side: int) -> float:
    """Norm of a side after over its norm before."""
    pairs = [(layer.before[side], layer.weights[side]) for layer in layers]
    before = sum(energy for energy, _ in pairs)
    return math.sqrt(sum(energy * weight**2 for energy, weight in pairs) / before) if before else 1.0
