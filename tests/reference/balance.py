"""Balanced weights as their formulas say, dense, in float64."""

from __future__ import annotations

import math

import numpy as np


def weights(mode: str, contents: list[np.ndarray], styles: list[np.ndarray]) -> list[tuple[float, float]]:
    """(w_c, w_s) of each layer that both sides hold; deltas without the user's weights."""
    return of_norms(mode, [(float(np.linalg.norm(c)), float(np.linalg.norm(s))) for c, s in zip(contents, styles)])


def of_norms(mode: str, norms: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same from (|C|, |S|) of each layer."""
    if mode == "off":
        return [(1.0, 1.0)] * len(norms)
    if mode == "whole":
        content, style = (math.sqrt(sum(pair[side] ** 2 for pair in norms)) for side in (0, 1))
        norms = [(content, style)] * len(norms)
    if mode == "down":
        return [(min(1.0, s / c), min(1.0, c / s)) if c and s else (1.0, 1.0) for c, s in norms]
    return [(math.sqrt(s / c), math.sqrt(c / s)) if c and s else (1.0, 1.0) for c, s in norms]
