"""A training, step by step, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from .plots import blank

_COLOURS = ("#222222", "#0072b2", "#e69f00", "#009e73")
"""Okabe and Ito's, which the colour-blind tell apart."""


@dataclass(frozen=True)
class Curve:
    """A number that a training tells of each step."""

    label: str
    values: Sequence[float]


def curves_png(title: str, curves: Sequence[Curve]) -> bytes:
    """The curves on one logarithmic scale, as a PNG file. Raises PlotError without matplotlib."""
    drawn = blank(8, 4.5)
    axes = drawn.add_subplot()
    for curve, colour in zip(curves, _COLOURS):
        axes.plot(range(1, len(curve.values) + 1), curve.values, color=colour, linewidth=1.2, label=curve.label)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.set_title(title, parse_math=False)
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
