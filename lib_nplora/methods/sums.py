"""Methods that add both sides up, some after they changed single elements."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..maths.delta import Delta, whole
from ..maths.dense import DenseDelta
from .balance import balanced
from .layer import Layer
from .method import Method, Sum, added_up, with_input_side
from .parameter import Parameter, Values
from .texts import format_number, parse_density, parse_seed

DENSITY = Parameter(
    "density",
    parse_density,
    default=0.5,
    words="share that is kept",
    takes="a share such as 0.2 or 20%",
    format=format_number,
    number=float,
)

SEED = Parameter(
    "seed",
    parse_seed,
    default=0,
    words="picks what is dropped",
    takes="a whole number",
    number=int,
    infotext="NP-LoRA random seed",
)


def direct(layer: Layer, values: Values) -> Sum:
    """Plain weighted sum, arXiv 2511.11051, Eq. 5: what two ordinary LoRA tags give."""
    return added_up(layer)


def ties(layer: Layer, values: Values) -> Sum:
    """TIES-Merging, arXiv 2306.01708, Alg. 1.

    Trim each delta to its largest elements (layer by layer; the paper over all layers at once), elect a sign for each
    position, take the mean of those that agree with it.
    The weights count in the election and in the mean (lambda = 1). The result has no small rank.
    """
    deltas = [*layer.content.deltas, *layer.style.deltas]
    trimmed = torch.stack([_trimmed(delta.dense(), values[DENSITY]) for delta in deltas])
    agrees = (trimmed.sign() == trimmed.sum(0).sign()) & (trimmed != 0)
    merged = (trimmed * agrees).sum(0) / agrees.sum(0).clamp(min=1)
    return Sum([], [DenseDelta(merged, whole(deltas[0]).layer_shape)])


def _trimmed(matrix: Tensor, density: float) -> Tensor:
    """With all but the largest `density` of its elements set to 0. Those that tie with the last one stay."""
    magnitudes = matrix.abs()
    first = matrix.numel() - max(int(density * matrix.numel()), 1)
    return torch.where(magnitudes >= float(np.partition(magnitudes.flatten().numpy(), first)[first]), matrix, 0.0)


def dare(layer: Layer, values: Values) -> Sum:
    """DARE, arXiv 2311.03099: drop elements at random, rescale the rest by 1 / density, add up.

    What is dropped depends on the seed, the role and the layer's shape alone, so it is the same in every WebUI and in a
    saved file. The result has no small rank.
    """
    thinned = partial(_thinned, density=values[DENSITY], seed=values[SEED])
    return Sum(
        [thinned(delta, 2 * i) for i, delta in enumerate(layer.content.deltas)],
        [thinned(delta, 2 * i + 1) for i, delta in enumerate(layer.style.deltas)],
    )


def _thinned(delta: Delta, number: int, density: float, seed: int) -> DenseDelta:
    """The delta with a share of its elements; which, depends on the seed, on its shape, and on its number."""
    dense = whole(delta)
    generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
    kept = torch.rand(dense.matrix.shape, generator=generator) < density
    return DenseDelta(dense.matrix * kept / density, dense.layer_shape)


METHODS = balanced(
    Method(
        "direct",
        order=3,
        about="plain merge",
        told="adds both: what two `<lora:...>` tags do",
        source="",
        fuse=direct,
    ),
    Method(
        "ties",
        order=8,
        about="TIES: the largest changes, where their signs agree",
        told="keeps each one's largest changes where their signs agree",
        source="TIES, [2306.01708](https://arxiv.org/abs/2306.01708)",
        fuse=ties,
        parameters=(DENSITY.defaulting(0.2),),
        takes=with_input_side,
    ),
    Method(
        "dare",
        order=9,
        about="DARE: a random share of both, made stronger",
        told="keeps a random share of each, made stronger in turn",
        source="DARE, [2311.03099](https://arxiv.org/abs/2311.03099)",
        fuse=dare,
        parameters=(DENSITY, SEED),
        takes=with_input_side,
    ),
)
