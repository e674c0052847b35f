"""The ways to fuse that the demo and the table show, by their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GRID = tuple((content, style) for content in (0.6, 0.8, 1.0, 1.2) for style in (0.4, 0.6, 0.8, 1.0))
"""Weights of content and style from which the tuned ones are chosen."""

TUNED_WEIGHTS = (1.0, 0.6)
"""What an earlier model did best with, on other subjects than those that are shown. The table chooses anew."""

TUNED = "tuned weights"


@dataclass(frozen=True)
class Row:
    """A way to fuse: what `fuse_into` is told besides the files."""

    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    trained: str = ""
    """Which LoRA that was trained for the pair stands in place of a fusion: one of TRAINED; empty for none."""


JOINT, ZIPPED = TRAINED = ("joint", "zipped")


def weighted(content: float, style: float) -> Row:
    """A plain sum by these weights."""
    return Row(f"weights {content:g}, {style:g}", {"method": "direct", "c": content, "s": style})


DIRECT = Row("direct", {"method": "direct"})
NP = tuple(Row(f"NP {mu}", {"mu": mu}) for mu in (0.25, 0.5, 2, "hard"))
KLORA = Row("K-LoRA", {"method": "klora"})
DOWN = Row("balance down", {"method": "direct", "balance": "down"})

SHOWN = (DIRECT, *NP[1:], KLORA, Row(TUNED, weighted(*TUNED_WEIGHTS).settings), DOWN)
"""The demo's columns."""

BALANCED = (
    Row("balance layer", {"method": "direct", "balance": "layer"}),
    DOWN,
    Row("balance whole", {"method": "direct", "balance": "whole"}),
    Row("spectral layer", {"method": "spectral"}),
    Row("spectral down", {"method": "spectraldown"}),
    Row("balance layer, NP 0.5", {"mu": 0.5, "balance": "layer"}),
    Row("balance layer, NP hard", {"mu": "hard", "balance": "layer"}),
    Row("balance layer, K-LoRA", {"method": "klora", "balance": "layer"}),
    Row("balance layer, TIES", {"method": "ties", "balance": "layer"}),
    Row("balance down, NP 0.5", {"mu": 0.5, "balance": "down"}),
    Row("balance down, K-LoRA", {"method": "klora", "balance": "down"}),
)
"""Weights that choose themselves."""

OBSERVING = (
    Row("SSR", {"method": "ssr"}),
    Row("ridge 0.3", {"method": "ridge", "ridge": 0.3}),
    Row("ridge 1", {"method": "ridge", "ridge": 1}),
    Row("npx 0.5", {"method": "npx", "mu": 0.5}),
    Row("npx hard", {"method": "npx", "mu": "hard"}),
    Row("tau 0.1", {"method": "tau", "tau": 0.1}),
    Row("tau 0.5", {"method": "tau", "tau": 0.5}),
    Row("balance layer, ridge 0.3", {"method": "ridge", "ridge": 0.3, "balance": "layer"}),
    Row("balance layer, npx 0.5", {"method": "npx", "mu": 0.5, "balance": "layer"}),
)
"""Methods that look at the model at work."""

OF_PAIRS = (Row("joint training", trained=JOINT), Row("ZipLoRA", trained=ZIPPED))
"""What is trained for each pair anew: the papers' baselines."""

WEIGHTED = tuple(weighted(*weights) for weights in GRID)

MEASURED = (
    DIRECT,
    *NP,
    KLORA,
    Row("TIES", {"method": "ties"}),
    Row("random subspace", {"method": "random"}),
    Row("content shrunk", {"method": "shrunk"}),
    *BALANCED,
    *OBSERVING,
    *OF_PAIRS,
    *WEIGHTED,
)
"""All that the table is made from."""

SHORT = (
    TUNED,
    "direct",
    "balance down",
    "balance layer",
    "balance layer, NP 0.5",
    "NP 0.5",
    "NP hard",
    "K-LoRA",
    "TIES",
    "random subspace",
)
"""The rows of the README's table, by their labels."""
