"""Pictures of an inspected pair. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import io
import math
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from ..errors import NploraError
from ..fusion.interference import Interference
from ..jobs.pair import FileFusion
from ..layers.block import Block
from ..layers.key import ModuleKey
from ..layers.place import KINDS
from ..methods.selection import USUAL_STEPS
from ..methods.texts import format_number
from ..request.request import FusionRequest
from .groups import Group
from .sentences import percent, projects, removed_at, strength_of
from .themes import LIGHT, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CONTENT, _STYLE = "#0072b2", "#e69f00"
"""Two of Okabe and Ito's colours, which the colour-blind tell apart."""

_GREATEST_MU = 5

FAR = 1.5
"""How many times more, or less, than unrelated LoRAs two must share in a cell for its number to be printed."""


class PlotError(NploraError):
    """There is nothing to draw with."""


def png(fusion: FileFusion, request: FusionRequest, steps: int = USUAL_STEPS) -> bytes:
    """`figure` as a PNG file, some 1200 pixels wide. Raises PlotError."""
    buffer = io.BytesIO()
    figure(fusion, request, steps).savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def figure(fusion: FileFusion, request: FusionRequest, steps: int = USUAL_STEPS) -> Figure:
    """Where the two meet, the style's spectrum, what mu removes and, if the method has a schedule, who wins.

    steps
        How many the schedule is drawn for.
    Raises PlotError without matplotlib.
    """
    letters = letters_of(fusion, steps)
    rows = len({key.place.block for key in fusion.interference})
    height = max(6.0, 0.24 * rows + 1.5)
    heights = [height, 3.2] if letters else [height]
    drawn = blank(12, sum(heights))
    drawn.suptitle(f"{_plain(request.title)}, method {request.method.name}", parse_math=False)
    upper, *lower = drawn.subfigures(len(heights), 1, squeeze=False, height_ratios=heights).flat
    if fusion.interference:
        grid = upper.add_gridspec(2, 2, width_ratios=(3, 2))
        overlaps(upper.add_subplot(grid[:, 0]), fusion, LIGHT)
        spectrum(upper.add_subplot(grid[0, 1]), fusion)
        removed(upper.add_subplot(grid[1, 1]), fusion, request, LIGHT)
    else:
        upper.text(0.5, 0.5, NOTHING, ha="center")
    for below in lower:
        schedule(below.add_subplot(), letters)
    return drawn


NOTHING = "The two LoRAs share no layer that is fused."


def blank(width: float, height: float) -> Figure:
    """Raises PlotError."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotError("plots need matplotlib: pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")


def letters_of(fusion: FileFusion, steps: int) -> dict[ModuleKey, str]:
    return fusion.schedule.letters(steps) if fusion.schedule else {}


def _plain(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)[:120]


def overlaps(axes: Axes, fusion: FileFusion, theme: Theme, size: float = 8, scale: str = "right") -> None:
    """Blocks x kinds of layers, coloured by overlap over what unrelated LoRAs share.

    size
        How large the cells' numbers are, in points.
    scale
        The side on which the colours are explained.
    """
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    cells: dict[tuple[Block, str], list[Interference]] = {}
    for key, row in fusion.interference.items():
        cells.setdefault((key.place.block, key.place.kind), []).append(row)
    blocks = sorted({block for block, _ in cells})
    kinds = sorted({kind for _, kind in cells}, key=KINDS.index)
    table = np.full((len(blocks), len(kinds)), np.nan)
    for (block, kind), rows in cells.items():
        if ratio := Group.of(rows).times_chance:
            table[blocks.index(block), kinds.index(kind)] = ratio
    known = table[~np.isnan(table)]
    doublings = int(np.clip(np.ceil(np.abs(np.log2(known)).max(initial=0)), 2, 5))
    limit = 2.0**doublings
    axes.set_facecolor(theme.faint)
    colours = LinearSegmentedColormap.from_list("less, same, more", [theme.less, theme.same, theme.more])
    image = axes.imshow(table, cmap=colours, norm=LogNorm(1 / limit, limit), aspect="auto", interpolation="nearest")
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, location=scale, label="times unrelated LoRAs")
    ticks = [2.0**power for power in range(-doublings, doublings + 1)]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.minorticks_off()
    axes.set_xticks(range(len(kinds)), kinds, rotation=45, ha="right")
    axes.set_yticks(range(len(blocks)), map(str, blocks), fontsize=10 if len(blocks) <= 40 else 8)
    axes.set_title("How much the two meet")
    for row, column in np.argwhere(~np.isnan(table)):
        value = table[row, column]
        if max(value, 1 / value) >= FAR:
            ink = theme.on_far if abs(math.log(value, limit)) > 0.6 else theme.on_same
            axes.text(column, row, f"{value:.2g}".lstrip("0"), ha="center", va="center", color=ink, fontsize=size)


def spectrum(axes: Axes, fusion: FileFusion) -> None:
    """The style's singular values with the cut at k, as in arXiv 2511.11051, Fig. 3."""
    from matplotlib.ticker import MaxNLocator

    rows = [row for row in fusion.interference.values() if row.spectrum]
    axes.set_title("The style's singular values")
    if not rows:
        return
    table = np.full((len(rows), max(len(row.spectrum) for row in rows)), np.nan)
    for line, row in zip(table, rows):
        line[: len(row.spectrum)] = np.array(row.spectrum) / row.spectrum[0]
    index = np.arange(1, table.shape[1] + 1)
    low, middle, high = np.nanpercentile(table, (10, 50, 90), axis=0)
    axes.fill_between(index, low, high, color=_STYLE, alpha=0.3, linewidth=0, label="most layers")
    axes.plot(index, middle, color=_STYLE, marker="o" if len(index) < 20 else "", markersize=3, label="median layer")
    k = median(row.k for row in rows)
    axes.axvspan(0.5, k + 0.5, color=_CONTENT, alpha=0.12, linewidth=0, label=f"protected: k = {k:g}")
    axes.set(
        xlabel="direction of the style", ylabel="share of the largest", ylim=(0, 1.05), xlim=(0.5, len(index) + 0.5)
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8)


def removed(axes: Axes, fusion: FileFusion, request: FusionRequest, theme: Theme) -> None:
    """Energy removed against mu, arXiv 2511.11051, Eq. 25-26."""
    total = Group.of(fusion.interference.values())
    mus = np.linspace(0, _GREATEST_MU, 201)
    axes.plot(mus, [100 * total.inside * removed_at(mu) for mu in mus], color=_CONTENT)
    axes.axhline(100 * total.inside, color="gray", linestyle="--", linewidth=1, label=f"hard: {percent(total.inside)}")
    if projects(request):
        mu = strength_of(request)
        label = f"mu = {format_number(mu)}: {percent(total.removed)}"
        axes.plot(min(mu, _GREATEST_MU), 100 * total.removed, "o", color=theme.ink, label=label, clip_on=False)
    axes.set(xlabel="mu", ylabel="%", xlim=(0, _GREATEST_MU), ylim=(0, max(100 * total.inside * 1.15, 0.1)))
    axes.set_title("Share of the content's energy that np removes")
    axes.legend(fontsize=8, loc="lower right")


def schedule(axes: Axes, letters: dict[ModuleKey, str]) -> None:
    """Who wins: layers across, steps down, as in arXiv 2502.18461, Fig. 6."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    keys = sorted(letters, key=lambda key: key.place.block)
    table = np.array([[letter == "s" for letter in letters[key]] for key in keys]).T
    colours = ListedColormap([_CONTENT, _STYLE])
    steps = len(table)
    sides = (-0.5, len(keys) - 0.5, steps + 0.5, 0.5)
    axes.imshow(table, cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="nearest", extent=sides)
    blocks = [str(key.place.block) for key in keys]
    firsts = [i for i, block in enumerate(blocks) if i == 0 or blocks[i - 1] != block]
    axes.set_xticks(firsts, [blocks[i] for i in firsts], rotation=45, ha="right", fontsize=8)
    axes.set(xlabel="layers by block", ylabel="sampler step")
    axes.set_title("Who wins", pad=28)
    handles = [Patch(color=_CONTENT, label="content wins"), Patch(color=_STYLE, label="style wins")]
    axes.legend(handles=handles, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncol=2)
