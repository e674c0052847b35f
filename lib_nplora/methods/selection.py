"""Which of two LoRAs wins a layer at which step: K-LoRA, arXiv 2502.18461."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import torch

from ..maths.delta import Delta
from ..maths.largest import Largest
from ..maths.lowrank import LowRankDelta

Winner = Literal["content", "style"]

USUAL_STEPS = 20
"""The hosts' own default."""

MOST_STEPS = 10000
"""The longest schedule that is told."""

AT_ONCE = 80 * 2**10
"""Elements of a layer that are made and weighed at once: few enough to stay in a core's cache."""


@dataclass(frozen=True)
class Importance:
    """What one side weighs in a layer, scale and weights included.

    top
        Sum of its K largest magnitudes: Eq. 3 and 4.
    total
        Sum of all its magnitudes: the inner sum of Eq. 9.
    """

    top: float
    total: float

    nbytes = 64

    def scaled(self, weight: float) -> Importance:
        """What weight * delta weighs."""
        return Importance(abs(weight) * self.top, abs(weight) * self.total)


@dataclass(frozen=True)
class Contest:
    """A layer that both sides hold."""

    content: Importance
    style: Importance


EVEN = Contest(Importance(1, 1), Importance(1, 1))
"""For rules that weigh nothing."""

Rule = Callable[[Contest, float, int, int], bool]
"""(contest, gamma, step, steps) -> whether the content wins, for 0 <= step < steps."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """Who wins which layer when.

    contests
        What both sides weigh in each layer.
    rule
        Who wins by the method, with its settings.
    """

    contests: Mapping[Any, Contest]
    rule: Rule

    @cached_property
    def gamma(self) -> float:
        """Content's sum of magnitudes over the style's, over all contests, Eq. 9: neither wins for being louder."""
        content, style = (
            sum(total)
            for total in zip(*((one.content.total, one.style.total) for one in self.contests.values()), strict=True)
        )
        return content / style if style else 1.0

    def winners(self, step: int, steps: int) -> dict[Any, Winner]:
        """The winner of each layer at this step of so many."""
        return {
            layer: "content" if self.rule(contest, self.gamma, step, steps) else "style"
            for layer, contest in self.contests.items()
        }

    def letters(self, steps: int) -> dict[Any, str]:
        """For each layer a letter for each step, c or s."""
        by_step = [self.winners(step, steps) for step in range(steps)]
        return {layer: "".join(winners[layer][0] for winners in by_step) for layer in self.contests}


def top_k(content_rank: int, style_rank: int) -> int:
    """How many magnitudes count: K = r_c r_s, Eq. 5."""
    return content_rank * style_rank


def rank_of(delta: Delta) -> int:
    """That of its factors; the full one of a delta that has none."""
    return delta.rank if isinstance(delta, LowRankDelta) else min(delta.shape)


def importance(delta: Delta, k: int) -> Importance:
    """Sums of magnitudes in float64, of the elements in float32. Makes some rows of the matrix at a time."""
    return _weighed(delta, k, hasty=True) or cast("Importance", _weighed(delta, k, hasty=False))


def _weighed(delta: Delta, k: int, hasty: bool) -> Importance | None:
    """None if haste has passed over some of the largest."""
    out, in_ = delta.shape
    every = math.ceil(out / max(AT_ONCE // in_, 1))
    largest, total = Largest(k, out * in_, hasty), 0.0
    made = torch.empty(0, in_)
    for start in range(every):
        rows = len(range(start, out, every))
        if rows != made.shape[0]:
            made, wide = torch.empty(rows, in_), torch.empty(rows, in_, dtype=torch.float64)
            magnitudes = made.numpy().ravel()
        delta.write_rows(start, every, made)
        np.abs(magnitudes, out=magnitudes)
        largest.add(magnitudes)
        total += wide.copy_(made).sum().item()
    top = largest.sum()
    return None if top is None else Importance(top, total)


def rising(alpha: float, beta: float, step: int, steps: int) -> float:
    """S = alpha t / T + beta, Eq. 7."""
    return alpha * step / steps + beta


def sawtooth(alpha: float, beta: float, step: int, steps: int) -> float:
    """S* = (alpha t / T + beta) % alpha, Eq. 12: both of its alphas are 1.5 in the paper. alpha > 0."""
    return rising(alpha, beta, step, steps) % alpha


def content_wins(contest: Contest, gamma: float, scale: float) -> bool:
    """Whether S_c >= S_s gamma S: Eq. 6, 8 and 10. A tie is the content's."""
    return contest.content.top >= contest.style.top * (gamma * scale)
