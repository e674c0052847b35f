"""One update that does what each LoRA does where that one is at work: closed forms of a regression on activations.

With z = D x and the moments G_c, G_s of `moments`, U (out, r_c + r_s) minimises

    E_c|U z - dW_c x|^2 + E_s|U z - dW_s x|^2 + a penalty

and the layer's update is U D, of rank r_c + r_s. Without the penalty U = [up_c, up_s] Q (G_c + G_s)^-1, where Q has the
contents' rows of G_c and the styles' of G_s. RegMean (arXiv 2212.09849) does the same with whole weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..errors import RequestError
from ..maths.lowrank import LowRankDelta
from ..maths.rank_rule import NUMERICAL_RANK
from .balance import balanced
from .layer import Layer
from .method import Method, Sum, added_up
from .moments import MOMENTS, Moments, Stacked
from .parameter import Parameter, Values
from .texts import format_number, parse_number

LOST = 1e-13
"""Share of the largest eigenvalue under which a direction of z was not met: rounding noise of float64."""


def _parse_ridge(text: str) -> float:
    """A number >= 0. Raises RequestError."""
    value = parse_number("ridge", text)
    if value < 0:
        raise RequestError(f"ridge={text.strip()} is negative: it is a number from 0 up")
    return value


RIDGE = Parameter(
    "ridge",
    _parse_ridge,
    default=1e-4,
    words="how strongly the solution is held back",
    takes="a number from 0 up",
    format=format_number,
    number=float,
)

Penalty = Callable[[Tensor, Stacked], tuple[Tensor, Tensor]]
"""(G_c + G_s, the layer) -> what the penalty of weight 1 adds to it, and what to Q."""


def towards_nothing(seen: Tensor, stacked: Stacked) -> tuple[Tensor, Tensor]:
    """ridge m |U|^2, m the mean eigenvalue of G_c + G_s."""
    mean = seen.trace() / len(seen)
    return mean * torch.eye(len(seen), dtype=seen.dtype), torch.zeros_like(seen)


def towards_the_sum(seen: Tensor, stacked: Stacked) -> tuple[Tensor, Tensor]:
    """ridge m |(U - [up_c, up_s]) D|^2, m the mean energy of the inputs along a direction that D reads.

    That is tr((G_c + G_s) (D D^T)^-1) / rank D, so it does not matter how the updates are factored.
    """
    gram = stacked.down @ stacked.down.T
    inverse = torch.linalg.pinv(gram, rtol=NUMERICAL_RANK**2, hermitian=True)
    added = gram * ((seen * inverse).sum() / (gram * inverse).sum())
    return added, added


def mixed(moments: Moments, stacked: Stacked, ridge: float, penalty: Penalty) -> Tensor:
    """R, (r_c + r_s, r_c + r_s), of the best U = [up_c, up_s] R."""
    first = moments.contents
    wanted = torch.cat([moments.content[:first], moments.style[first:]])
    seen = moments.content + moments.style
    to_seen, to_wanted = penalty(seen, stacked)
    inverse: Tensor = torch.linalg.pinv(seen + ridge * to_seen, rtol=LOST, hermitian=True)
    return (wanted + ridge * to_wanted) @ inverse


def _solved(layer: Layer, values: Values, penalty: Penalty) -> Sum:
    moments, stacked = MOMENTS.of(layer), Stacked.of(layer)
    if not moments.content.trace() + moments.style.trace() > 0:
        return added_up(layer)
    up = stacked.up @ mixed(moments, stacked, values[RIDGE], penalty)
    return Sum([], [LowRankDelta(up.float(), stacked.down.float(), stacked.kernel)])


METHODS = balanced(
    Method(
        "ssr",
        order=13,
        about="does on each side's inputs what that side does",
        told="the least squares solution: on inputs that come up under the content alone it does what the content "
        "does, on those under the style alone what the style does",
        source="SSR-Merge, [2606.10617](https://arxiv.org/abs/2606.10617)",
        fuse=partial(_solved, penalty=towards_nothing),
        parameters=(RIDGE,),
        needs=(MOMENTS,),
    ),
    Method(
        "ridge",
        order=14,
        about="between ssr and the plain merge",
        told="the same, held near the plain merge by `ridge`: 0 is `ssr`, a large number is `direct`",
        source="ours",
        fuse=partial(_solved, penalty=towards_the_sum),
        parameters=(RIDGE.defaulting(0.3),),
        needs=(MOMENTS,),
    ),
)
