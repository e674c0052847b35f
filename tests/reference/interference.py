"""What a row of an inspection says of a layer that both LoRAs hold, from the definitions."""

from __future__ import annotations

import math

import numpy as np

from .np_lora import basis, projector


def row(content: np.ndarray, style: np.ndarray, mu: float, k: str = "all") -> dict[str, float]:
    """A row's values by their names. Weights are in the matrices."""
    v_all, v_k = basis([style]), basis([style], k)
    energy = np.linalg.norm(content) ** 2
    s = np.linalg.svd(style, compute_uv=False)[: v_all.shape[1]]
    p = s / s.sum()
    cosine = np.linalg.svd(basis([content]).T @ v_all, compute_uv=False)[0]
    return {
        "overlap": np.linalg.norm(content @ v_all) ** 2 / energy,
        "chance": v_all.shape[1] / style.shape[1],
        "inside": np.linalg.norm(content @ v_k) ** 2 / energy,
        "removed": 1 - np.linalg.norm(content @ projector(v_k, mu)) ** 2 / energy,
        "norm_ratio": np.linalg.norm(content) / np.linalg.norm(style),
        "style_rank": math.exp(-(p * np.log(p)).sum()),
        "angle": math.degrees(math.acos(min(cosine, 1.0))),
        "k": v_k.shape[1],
    }
