"""The ways to fuse that the demo and the table show, by their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GRID = tuple((content, style) for content in (0.6, 0.8, 1.0, 1.2) for style in (0.4, 0.6, 0.8, 1.0))
"""Weights of content and style from which the tuned ones are chosen."""

TUNED = (1.0, 0.6)
"""What an earlier model did best with, on other subjects than those that are shown. The table chooses anew."""


@dataclass(frozen=True)
class Row:
    """A way to fuse: what `fuse_into` is told besides the files."""

    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)


DIRECT = Row("direct", {"method": "direct"})
SHOWN = (
    DIRECT,
    Row("NP 0.5", {"mu": 0.5}),
    Row("NP 2", {"mu": 2}),
    Row("NP hard", {"mu": "hard"}),
    Row("K-LoRA", {"method": "klora"}),
    Row("tuned weights", {"method": "direct", "c": TUNED[0], "s": TUNED[1]}),
    Row("lowered", {"method": "lowered"}),
)
"""The demo's columns."""

MEASURED = (
    *SHOWN,
    Row("geometric", {"method": "geometric"}),
    Row("random subspace", {"method": "random"}),
    Row("content shrunk", {"method": "shrunk"}),
    Row("TIES", {"method": "ties"}),
)
"""The table's rows."""


def weighted(content: float, style: float) -> Row:
    """A plain sum by these weights."""
    return Row(f"weights {content:g}, {style:g}", {"method": "direct", "c": content, "s": style})
