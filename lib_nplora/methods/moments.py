"""What layers are fed with while one side alone is part of the model: second moments, seen through the LoRAs alone.

With D = [down_c; down_s], the stacked down-projections of a layer's contents and styles, and z = D x for an input x, a
method is told G_c = E_c[z z^T] over the inputs that the layer meets while the contents act alone, and G_s = E_s[z z^T]
while the styles do. That is (r_c + r_s)^2 numbers each, however wide the layer is, and enough for all that is quadratic
in the effects of both updates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..errors import HostError
from ..layers.key import ModuleKey
from ..maths.delta import factored
from .layer import Layer, Observed, Side

Identity = tuple[str, ModuleKey]
"""What tells a LoRA's module from all others, see Side.identity."""


@dataclass(frozen=True, eq=False)
class Moments:
    """G_c and G_s, (r_c + r_s, r_c + r_s) float64 each.

    contents
        r_c: the rows and columns of the contents stand first.
    """

    content: Tensor
    style: Tensor
    contents: int


@dataclass(frozen=True, eq=False)
class Seen:
    """The moments of one whole layer.

    spans
        Where in z each LoRA's module stands: (first, behind the last).
    content, style
        G_c and G_s over all of z.
    """

    spans: Mapping[Identity, tuple[int, int]]
    content: Tensor
    style: Tensor

    @property
    def nbytes(self) -> int:
        return self.content.nbytes + self.style.nbytes


@dataclass(frozen=True, eq=False)
class Observations:
    """The moments of all layers that both sides hold."""

    layers: Mapping[ModuleKey, Seen]

    @property
    def nbytes(self) -> int:
        return sum(seen.nbytes for seen in self.layers.values())

    @cached_property
    def digest(self) -> str:
        """Stands for what was seen: equal digests, equal moments."""
        found = hashlib.sha256()
        for key, seen in self.layers.items():
            found.update(repr((key, list(seen.spans.items()))).encode())
            found.update(torch.cat([seen.content, seen.style]).numpy().tobytes())
        return found.hexdigest()

    def of(self, layer: Layer) -> Moments:
        """Those of a layer, or of some of its rows. Raises HostError for one that was not looked at."""
        seen = self.layers.get(layer.key.layer)
        if seen is None:
            raise HostError(f"layer {layer.key} was not looked at: choose a method that LoRAs are enough for")
        contents, styles = (_rows(seen, side) for side in (layer.content, layer.style))
        rows = torch.tensor(contents + styles)
        picked = rows[:, None], rows[None, :]
        return Moments(seen.content[picked], seen.style[picked], len(contents))


MOMENTS = Observed("moments of the inputs")
"""What a method declares to be told them."""


@dataclass(frozen=True, eq=False)
class Stacked:
    """The updates of a layer as one product up @ down, in float64: contents first, as in Moments.

    up
        [up_c, up_s], (out, r_c + r_s), weights included.
    down
        [down_c; down_s], (r_c + r_s, in): D.
    contents
        r_c.
    kernel
        Shape of the convolution's kernel, () for a linear layer.
    """

    up: Tensor
    down: Tensor
    contents: int
    kernel: tuple[int, ...]

    @classmethod
    def of(cls, layer: Layer) -> Stacked:
        sides = layer.content, layer.style
        factors = [(share, factored(share.delta)) for side in sides for share in side.shares]
        start, stop = layer.content.start, layer.content.stop
        ups = [
            share.weight * factor.rows(start - share.start, stop - share.start).up.double() for share, factor in factors
        ]
        contents = sum(factor.rank for _, factor in factors[: len(layer.content.shares)])
        kernel = next((factor.kernel for _, factor in factors if factor.kernel), ())
        return cls(torch.cat(ups, 1), torch.cat([factor.down for _, factor in factors]).double(), contents, kernel)


def _rows(seen: Seen, side: Side) -> list[int]:
    return [row for identity in side.identity for row in range(*seen.spans[identity])]


def stacked_downs(modules: Sequence[tuple[Identity, Tensor]]) -> tuple[dict[Identity, tuple[int, int]], Tensor]:
    """D of a whole layer, and where each module stands in it."""
    spans, rank = {}, 0
    for identity, down in modules:
        spans[identity] = rank, rank + down.shape[0]
        rank += down.shape[0]
    return spans, torch.cat([down for _, down in modules])
