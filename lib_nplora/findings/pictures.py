"""The plots of an inspected pair one by one, as a page shows them. matplotlib is imported when the first is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..jobs.pair import FileFusion
from ..methods.selection import USUAL_STEPS
from ..request.request import FusionRequest
from .plots import blank, letters_of, overlaps, removed, schedule, spectrum
from .said import translated
from .themes import LIGHT, Theme, dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 3.6
"""Inches: a point of text is then about a pixel where a page is 400 wide, and leaves a plot some 250."""

_SIZE = 10
"""Points of whatever is to be read."""


def pictures(
    fusion: FileFusion,
    request: FusionRequest,
    steps: int = USUAL_STEPS,
    theme: Theme = LIGHT,
    words: Mapping[str, str] = MappingProxyType({}),
) -> list[Figure]:
    """What `plots.figure` shows, each by itself, to be read at the width of a phone, on the page's own ground.

    words
        English -> the page's language, for all but the names of layers.
    Raises PlotError without matplotlib.
    """
    letters = letters_of(fusion, steps)
    drawn = []

    def add(height: float, draw: Callable[[Axes], None]) -> None:
        made = blank(_WIDTH, height)
        draw(made.add_subplot())
        _enlarge(made)
        dress(made, theme)
        _translate(made, words)
        drawn.append(made)

    if fusion.interference:
        rows = len({key.place.block for key in fusion.interference})
        add(max(3.0, 0.21 * rows + 2), lambda axes: overlaps(axes, fusion, theme, _SIZE, "bottom"))
        add(2.4, lambda axes: spectrum(axes, fusion))
        add(2.4, lambda axes: removed(axes, fusion, request, theme))
    if letters:
        add(3.0, lambda axes: schedule(axes, letters))
    return drawn


def _enlarge(drawn: Figure) -> None:
    """Let nothing be smaller than _SIZE, and long titles go on in a second line."""
    for axes in drawn.axes:
        legend = axes.get_legend()
        axes.title.set(fontsize=_SIZE + 1, wrap=True)
        for text in legend.get_texts() if legend else ():
            text.set_fontsize(_SIZE)


def _translate(drawn: Figure, words: Mapping[str, str]) -> None:
    """Say titles, labels and legends in another language."""
    for axes in drawn.axes:
        legend = axes.get_legend()
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *(legend.get_texts() if legend else ())):
            text.set_text(translated(text.get_text(), words))


def title_of(drawn: Figure) -> str:
    """What a figure of `pictures` shows, in words."""
    return str(drawn.axes[0].get_title())


def as_png(drawn: Figure) -> bytes:
    """A figure of `pictures` as a PNG file, sharp on any screen."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=280, transparent=True)
    return buffer.getvalue()
