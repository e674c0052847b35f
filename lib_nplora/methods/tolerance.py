"""NP-LoRA whose mu is chosen layer by layer: no more than it takes for the style's effect to be left alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import RequestError
from ..maths.subspace import project_out
from .balance import balanced
from .bases import STYLE_INPUT
from .layer import Layer
from .method import Method, Sum
from .moments import MOMENTS, Stacked
from .parameter import Parameter, Values
from .projections import FEWER, K
from .texts import format_number, parse_number


def _parse_tau(text: str) -> float:
    """A number >= 0. Raises RequestError."""
    value = parse_number("tau", text)
    if value < 0:
        raise RequestError(f"tau={text.strip()} is negative: it is a share from 0 up")
    return value


TAU = Parameter(
    "tau",
    _parse_tau,
    default=0.25,
    words="how much of the style's effect the content may disturb",
    takes="a share from 0 up",
    format=format_number,
    number=float,
)


@dataclass(frozen=True)
class Disturbance:
    """What the content does on the style's inputs: whole - 2 beta inside + beta^2 taken, if beta is projected off.

    whole
        E_s|dW_c x|^2.
    inside
        E_s of (dW_c x) . (dW_c V V^T x).
    taken
        E_s|dW_c V V^T x|^2.
    """

    whole: float
    inside: float
    taken: float

    def at(self, beta: float) -> float:
        return self.whole - 2 * beta * self.inside + beta**2 * self.taken

    def least(self, allowed: float) -> float:
        """The least beta from 0 to 1 that disturbs no more than is allowed; or the one that does least."""
        if self.whole <= allowed:
            return 0.0
        if not self.taken:
            return 0.0
        best = min(max(self.inside / self.taken, 0.0), 1.0)
        if self.at(best) >= allowed:
            return best
        root = math.sqrt(max(self.inside**2 - self.taken * (self.whole - allowed), 0.0))
        return min((self.inside - root) / self.taken, best)


def disturbance(layer: Layer, values: Values) -> tuple[Disturbance, float]:
    """What the content does on the style's inputs, and E_s|dW_s x|^2, what the style itself does there."""
    stacked, moments = Stacked.of(layer), MOMENTS.of(layer)
    first, basis = stacked.contents, STYLE_INPUT.of(layer).basis(values[K]).double()
    down_c, down_s = stacked.down[:first], stacked.down[first:]
    inside = down_c @ basis @ (basis.T @ torch.linalg.pinv(down_s))
    up_c, up_s = stacked.up[:, :first], stacked.up[:, first:]
    content, style = up_c.T @ up_c, up_s.T @ up_s
    cc, cs, ss = (moments.style[rows, columns] for rows, columns in _blocks(first))
    found = (content * cc).sum(), (content * (cs @ inside.T)).sum(), (content * (inside @ ss @ inside.T)).sum()
    return Disturbance(*map(float, found)), float((style * ss).sum())


def _blocks(first: int) -> list[tuple[slice, slice]]:
    content, style = slice(None, first), slice(first, None)
    return [(content, content), (content, style), (style, style)]


def least_projection(layer: Layer, values: Values) -> Sum:
    """dW_s + dW_c (I - beta V V^T) with the least beta for which E_s|dW_c' x|^2 <= tau E_s|dW_s x|^2.

    Where even `hard` disturbs more, the beta that disturbs least. The NP-LoRA paper leaves such a choice to others.
    """
    found, own = disturbance(layer, values)
    basis, beta = STYLE_INPUT.of(layer).basis(values[K]), found.least(values[TAU] * own)
    contents = [project_out(content, basis, beta) for content in layer.content.deltas]
    return Sum(contents, layer.style.deltas, basis.shape[1] / basis.shape[0])


METHODS = balanced(
    Method(
        "tau",
        order=16,
        about="np with the least mu that spares the style, layer by layer",
        told="`np` whose mu is chosen layer by layer: the least with which the content does, on the style's inputs, at "
        "most the share `tau` of what the style does there",
        source="ours",
        fuse=least_projection,
        parameters=(TAU, K),
        needs=(MOMENTS, STYLE_INPUT),
        directions=lambda values: values[K],
        fewer=FEWER,
    ),
)
