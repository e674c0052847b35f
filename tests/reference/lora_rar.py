"""LoRA.rar in float64, by its definition: arXiv 2412.05148, section 3; and a hypernetwork of random weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SHAPES = {
    "input_1.weight": (128, 1280),
    "input_1.bias": (128,),
    "input_2.weight": (128, 2560),
    "input_2.bias": (128,),
    "output.1.weight": (2, 128),
    "output.1.bias": (2,),
}


def random_hypernet(seed: int = 0) -> dict[str, np.ndarray]:
    """One with the published one's names and shapes, and of about its size."""
    generator = np.random.default_rng(seed)
    return {name: 0.1 * generator.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def mergers(hypernet: Mapping[str, np.ndarray], content: np.ndarray, style: np.ndarray) -> np.ndarray:
    """(in, 2): both coefficients of each column, one column after the other."""
    first = next(name for name in ("input_1", "input_2") if hypernet[f"{name}.weight"].shape[1] == 2 * len(content))
    w1, b1, w2, b2 = (
        np.asarray(hypernet[name], np.float64)
        for name in (f"{first}.weight", f"{first}.bias", "output.1.weight", "output.1.bias")
    )
    return np.array([w2 @ np.maximum(w1 @ np.concatenate(both) + b1, 0) + b2 for both in zip(content.T, style.T)])


def merged(hypernet: Mapping[str, np.ndarray], content: np.ndarray, style: np.ndarray) -> np.ndarray:
    both = mergers(hypernet, content, style)
    return content * both[:, 0] + style * both[:, 1]


def narrow_hypernet(width: int, seed: int = 0) -> dict[str, np.ndarray]:
    """One whose first width is another, for small models."""
    hypernet = random_hypernet(seed)
    return {**hypernet, "input_1.weight": np.ascontiguousarray(hypernet["input_1.weight"][:, : 2 * width])}
