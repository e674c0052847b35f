"""The principal directions that projections need, uncut: k cuts them later."""

from __future__ import annotations

from ..maths.subspace import RightSvd, right_svd
from .layer import Need

_INPUT = "right singular vectors"
_OUTPUT = "left singular vectors"


STYLE_INPUT: Need[RightSvd] = Need(
    _INPUT, lambda layer: layer.style.identity, lambda layer: right_svd(layer.style.modules)
)
"""On the input side, of all styles stacked, whole modules: slices of them share it."""

CONTENT_INPUT: Need[RightSvd] = Need(
    _INPUT, lambda layer: layer.content.identity, lambda layer: right_svd(layer.content.modules)
)
"""Likewise, of the contents."""

STYLE_OUTPUT: Need[RightSvd] = Need(
    _OUTPUT,
    lambda layer: (layer.key.rows, layer.style.identity),
    lambda layer: right_svd([delta.transposed() for delta in layer.style.plain]),
)
"""On the output side, of the rows at hand: the right singular vectors of what is transposed."""
