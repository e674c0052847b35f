"""Layers to try methods on, and fusions of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib_nplora.fusion.fused import FusedLora
from lib_nplora.fusion.walk import fuse
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.delta import Delta
from lib_nplora.methods.layer import AnyNeed, Layer, Share, Side
from lib_nplora.methods.method import Sum
from lib_nplora.methods.parameter import Values
from lib_nplora.methods.table import method_named, methods
from lib_nplora.request.request import FusionRequest, Source

from ..matrices import KEY, lora, random_delta

FOR_ANY_LAYER = [name for name, method in methods().items() if not any(one.is_setting for one in method.parameters)]
"""The methods that need no file besides, and so know layers of any size."""


def layer_of(contents: Sequence[Delta], styles: Sequence[Delta], key: ModuleKey = KEY) -> Layer:
    """A whole layer of these deltas, weight 1 each. What it is asked for is made anew each time."""

    def side(role: str, deltas: Sequence[Delta]) -> Side:
        rows = [*contents, *styles][0].shape[0]
        shares = [Share(f"{role} {i}", f"{role} {i}", key, delta, 1.0, 0, rows) for i, delta in enumerate(deltas)]
        return Side(shares, 0, rows)

    return Layer(
        key, side("content", contents), side("style", styles), lambda need, layer: need.fulfilled(Alone(layer), layer)
    )


@dataclass(frozen=True)
class Alone:
    """The walk over one layer, which keeps nothing."""

    layer: Layer

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        return make()

    def once(self, need: AnyNeed, make: Callable[[Iterable[Layer]], Any]) -> Any:
        return make([self.layer])


def two_a_side(key: ModuleKey = KEY) -> Layer:
    styles = [random_delta(12, 20, 4, 1), random_delta(12, 20, 2, 3)]
    contents = [random_delta(12, 20, 3, 5), random_delta(12, 20, 1, 7)]
    return layer_of(contents, styles, key)


def values(method: str, **given: Any) -> Values:
    """What a method reads, with its own defaults for what is not given. It may be given what it does not read."""
    return Values({**{one.name: one.default for one in method_named(method).parameters}, **given})


def deltas(layer: Layer | Sum) -> list[Delta]:
    """Contents first."""
    if isinstance(layer, Layer):
        return [*layer.content.deltas, *layer.style.deltas]
    return [*layer.contents, *layer.styles]


def exact(delta: Delta) -> np.ndarray:
    return delta.dense().double().numpy()


def request(method: str, c: float = 1.0, s: float = 1.0, **given: Any) -> FusionRequest:
    return FusionRequest.of((Source("dog", c, c),), (Source("vangogh", s, s),), method, **given)


def run(asked: FusionRequest, content: Delta | LoraWeights, style: Delta | LoraWeights) -> FusedLora:
    """Fuse LoRAs of one layer each, or ready ones."""
    sides = [
        one if isinstance(one, LoraWeights) else lora(name, one)
        for name, one in (("content", content), ("style", style))
    ]
    return fuse(asked, sides[:1], sides[1:], ByteLru(0))
