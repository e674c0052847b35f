"""NP-LoRA by what the style's inputs are like: the same projection with another idea of what is orthogonal."""

from __future__ import annotations

import torch
from torch import Tensor

from ..maths.lowrank import LowRankDelta
from ..maths.rank_rule import NUMERICAL_RANK
from ..maths.subspace import projection_strength
from .balance import balanced
from .layer import Layer
from .method import Method, Sum
from .moments import MOMENTS, Moments, Stacked
from .parameter import Values
from .projections import MU


def used(up: Tensor) -> Tensor:
    """(k, rank): what `up` (out, rank) reads of its inputs, without what it reads nothing of."""
    _, s, vh = torch.linalg.svd(up, full_matrices=False)
    read = s > NUMERICAL_RANK * s[0]
    found: Tensor = s[read, None] * vh[read]
    return found


def foretold(moments: Moments, up_s: Tensor) -> Tensor:
    """(r_c, r_s): the linear map that best foretells z_c from what the style reads of z_s, on the style's inputs."""
    first, reads = moments.contents, used(up_s)
    cross, own = moments.style[:first, first:], moments.style[first:, first:]
    inverse: Tensor = torch.linalg.pinv(reads @ own @ reads.T, rtol=NUMERICAL_RANK**2, hermitian=True)
    return cross @ reads.T @ inverse @ reads


def in_their_metric(layer: Layer, values: Values) -> Sum:
    """dW_s + up_c (down_c - beta F down_s), beta = mu / (1 + mu), F by `foretold`.

    On the style's inputs the content's effect loses what depends linearly on the style's; with mu = `hard` they are
    uncorrelated: E_s[(dW_c' x) (dW_s x)^T] = 0. Where the style's inputs are alike in all directions, this is `np`.
    """
    stacked, beta = Stacked.of(layer), projection_strength(values[MU])
    first = stacked.contents
    map_ = foretold(MOMENTS.of(layer), stacked.up[:, first:])
    down = stacked.down[:first] - beta * map_ @ stacked.down[first:]
    content = LowRankDelta(stacked.up[:, :first].float(), down.float(), stacked.kernel)
    return Sum([content], layer.style.deltas)


METHODS = balanced(
    Method(
        "npx",
        order=15,
        about="np by what the style's inputs are like",
        told="`np` by what the style's inputs are like: the content's effect loses what the style's effect foretells "
        "of it, softly by mu",
        source="ours",
        fuse=in_their_metric,
        parameters=(MU,),
        needs=(MOMENTS,),
    ),
)
