"""K-LoRA as the paper writes it, arXiv 2502.18461: every layer, every step, dense.

A layer is a pair of matrices, strengths included, with the ranks that they were trained with.

    Eq. 1, 2    magnitudes
    Eq. 3, 4    sums of the K largest
    Eq. 5       K = r_c r_s
    Eq. 6       the content if S_c >= S_s
    Eq. 7       S = alpha t / T + beta
    Eq. 8, 10   the style's sum times gamma S
    Eq. 9       gamma
    Eq. 12      S* = (alpha t / T + beta) % alpha

Where Algorithm 1 differs from Eq. 7 (alpha and beta change places), Eq. 7 holds: the paper's values are for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Pair:
    """What both sides hold for a layer, (out, in) float64."""

    content: np.ndarray
    style: np.ndarray
    content_rank: int
    style_rank: int


def top_k_sum(matrix: np.ndarray, k: int) -> float:
    """Eq. 1-4."""
    smallest_first = np.partition(np.abs(matrix), max(matrix.size - k, 0), axis=None)
    return float(smallest_first[-k:].sum())


def gamma(layers: Mapping[str, Pair]) -> float:
    """Eq. 9."""
    content = sum(float(np.abs(layer.content).sum()) for layer in layers.values())
    style = sum(float(np.abs(layer.style).sum()) for layer in layers.values())
    return content / style


def scale(step: int, steps: int, alpha: float, beta: float, star: bool) -> float:
    """Eq. 7 or 12."""
    s = alpha * step / steps + beta
    return s % alpha if star else s


def winners(
    layers: Mapping[str, Pair], step: int, steps: int, alpha: float, beta: float, star: bool = False
) -> dict[str, str]:
    """Algorithm 1, for each layer anew."""
    chosen = {}
    for name, layer in layers.items():
        k = layer.content_rank * layer.style_rank
        content, style = top_k_sum(layer.content, k), top_k_sum(layer.style, k)
        style *= gamma(layers) * scale(step, steps, alpha, beta, star)
        chosen[name] = "content" if content >= style else "style"
    return chosen


def letters(layers: Mapping[str, Pair], steps: int, alpha: float, beta: float, star: bool = False) -> dict[str, str]:
    """Layer -> a letter for each step: `c` where the content wins, `s` where the style does."""
    by_step = [winners(layers, step, steps, alpha, beta, star) for step in range(steps)]
    return {name: "".join(chosen[name][0] for chosen in by_step) for name in layers}
