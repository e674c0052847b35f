"""Colours of plots, light and dark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Theme:
    """Colours that suit a page.

    ink
        Colour of text and lines.
    faint
        Colour of what holds nothing.
    less, same, more
        Colours of cells where two share less than, as much as, and more than unrelated LoRAs would.
    on_same, on_far
        Colours of the numbers on them.
    """

    ink: str
    faint: str
    less: str
    same: str
    more: str
    on_same: str
    on_far: str


LIGHT = Theme("#222222", "#eeeeee", "#2166ac", "#f7f7f7", "#b2182b", on_same="black", on_far="white")
DARK = Theme("#e5e7eb", "#1f2937", "#5aa9e6", "#374151", "#f4845f", on_same="white", on_far="black")


def dress(drawn: Figure, theme: Theme) -> None:
    """Give all text and lines the theme's ink, on no ground of their own."""
    for axes in drawn.axes:
        axes.tick_params(which="both", colors=theme.ink)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_color(theme.ink)
        for spine in axes.spines.values():
            spine.set_edgecolor(theme.ink)
        if legend := axes.get_legend():
            legend.get_frame().set(facecolor=theme.faint, edgecolor=theme.ink)
            for text in legend.get_texts():
                text.set_color(theme.ink)
