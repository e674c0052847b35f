"""How much a content and a style meet in one layer.

Overlap as NP-LoRA measures it, arXiv 2511.11051, section IV: by the style's principal directions on the input side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..maths.delta import Delta
from ..maths.lowrank import LowRankDelta, column_products
from ..maths.subspace import RightSvd


@dataclass(frozen=True)
class Interference:
    """One layer that both sides hold. Shares are between 0 and 1; energy is the squared Frobenius norm.

    content_energy, style_energy
        Weights included.
    overlap
        Share of the content's energy inside the span of all of the style's directions.
    chance
        The overlap to expect of a random content: the style's rank over the layer's width.
    inside
        Share of the content's energy inside the k directions that are protected: what `hard` removes.
    removed
        Share of it that the method removes.
    style_rank
        The style's effective rank, 1 to its rank (0 if it is all zeros).
    angle
        Smallest principal angle between the two row spaces, in degrees, 0 to 90.
    start
        How alike the two `down` factors are, row by row (mean cosine, -1 to 1): near 0 unless both were trained from
        one start. None without factors.
    spectrum
        The style's singular values, largest first.
    k
        How many of them are protected.
    meeting
        The weights of content and style at which both would be equally strong: `balance=layer`.
    """

    content_energy: float
    style_energy: float
    overlap: float
    chance: float
    inside: float
    removed: float
    style_rank: float
    angle: float
    start: float | None
    spectrum: tuple[float, ...]
    k: int
    meeting: tuple[float, float] = (1.0, 1.0)

    @property
    def norm_ratio(self) -> float | None:
        """|content| / |style|; None if the style is all zeros."""
        return math.sqrt(self.content_energy / self.style_energy) if self.style_energy else None


def interference(
    contents: Sequence[Delta],
    styles: Sequence[Delta],
    content_svd: RightSvd,
    style_svd: RightSvd,
    k: int,
    removed: float,
    meeting: tuple[float, float],
) -> Interference:
    """Measure one layer.

    contents, styles
        Weighted deltas, (out, in) each.
    content_svd, style_svd
        Right singular vectors of all contents, and of all styles, stacked.
    k
        How many of the style's directions are protected.
    removed
        What the method removes, measured by the walk.
    meeting
        See Interference.
    """
    content_energy, style_energy = (sum(delta.energy() for delta in side) for side in (contents, styles))
    by_direction = sum((_energies(delta, style_svd.vh) for delta in contents), torch.zeros(len(style_svd.s)).double())

    def share(energies: Tensor) -> float:
        return min(float(energies.sum()) / content_energy, 1.0) if content_energy else 0.0

    return Interference(
        content_energy,
        style_energy,
        overlap=share(by_direction),
        chance=len(style_svd.s) / style_svd.vh.shape[1],
        inside=share(by_direction[:k]),
        removed=removed,
        style_rank=effective_rank(style_svd.s),
        angle=smallest_angle(content_svd.vh, style_svd.vh),
        start=_likeness(contents, styles),
        spectrum=tuple(style_svd.s.tolist()),
        k=k,
        meeting=meeting,
    )


def effective_rank(s: Tensor) -> float:
    """exp of the entropy of the singular values `s` (n,), as shares of their sum: Roy and Vetterli, EUSIPCO 2007."""
    if not len(s):
        return 0.0
    shares = s.double() / s.double().sum()
    return float(torch.special.entr(shares).sum().exp())


def smallest_angle(one: Tensor, other: Tensor) -> float:
    """Between the spans of the orthonormal rows of `one` (m, in) and `other` (n, in), in degrees.

    The sine is asked as well as the cosine, to tell small angles from none: Björck and Golub, 1973. 90 if one is empty.
    """
    if not (len(one) and len(other)):
        return 90.0
    cosines = one.double() @ other.double().T
    u, s, _ = torch.linalg.svd(cosines, full_matrices=False)
    along = u[:, 0] @ one.double()
    sine = float((along - (along @ other.double().T) @ other.double()).norm())
    return math.degrees(math.atan2(sine, float(s[0])))


def _energies(delta: Delta, vh: Tensor) -> Tensor:
    """|delta v|^2 for each of the rows v of `vh` (k, in): (k,) float64, without a matrix of (out, in)."""
    if not isinstance(delta, LowRankDelta):
        return (delta.matrix @ vh.T).double().square().sum(0)
    mapped = delta.down.double() @ vh.T.double()
    return (mapped * (column_products(delta.up) @ mapped)).sum(0).clamp(min=0)


def _likeness(contents: Sequence[Delta], styles: Sequence[Delta]) -> float | None:
    pairs = [(content, style) for content in contents for style in styles]
    cosines = [
        torch.nn.functional.cosine_similarity(content.down[:rank], style.down[:rank])
        for content, style in pairs
        if isinstance(content, LowRankDelta) and isinstance(style, LowRankDelta)
        for rank in (min(content.rank, style.rank),)
    ]
    return float(torch.cat(cosines).mean()) if cosines else None
