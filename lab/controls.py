"""Methods that no user needs: the controls without which nothing is claimed of one that is for users.

`with controls():` adds them to the table of methods, so that they go the same way as any other.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from lib_nplora.maths.delta import Delta
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.maths.subspace import project_out
from lib_nplora.methods.bases import STYLE_INPUT
from lib_nplora.methods.layer import Layer
from lib_nplora.methods.method import Method, Sum
from lib_nplora.methods.parameter import Values
from lib_nplora.methods.table import register


def random_subspace(layer: Layer, values: Values) -> Sum:
    """`hard` with a random subspace of the style's rank in place of the style's own."""
    basis = STYLE_INPUT.of(layer).basis(RankRule())
    generator = torch.Generator().manual_seed(zlib.crc32(str(layer.key).encode()))
    random = torch.linalg.qr(torch.randn(basis.shape, generator=generator)).Q
    return Sum([project_out(content, random, 1.0) for content in layer.content.deltas], layer.style.deltas)


def shrunk(layer: Layer, values: Values) -> Sum:
    """The content made weaker by as much as `hard` makes it, in every direction alike."""
    basis = STYLE_INPUT.of(layer).basis(RankRule())
    contents = [
        content.scaled(_ratio(project_out(content, basis, 1.0).energy(), content.energy()))
        for content in layer.content.deltas
    ]
    return Sum(contents, layer.style.deltas)


def lowered(layer: Layer, values: Values) -> Sum:
    """The stronger side made as weak as the weaker, layer by layer, by Frobenius norms."""
    content, style = layer.content.energy, layer.style.energy
    return Sum(
        _scaled(layer.content.deltas, min(1.0, _ratio(style, content))),
        _scaled(layer.style.deltas, min(1.0, _ratio(content, style))),
    )


def geometric(layer: Layer, values: Values) -> Sum:
    """Both sides brought to the geometric mean of their norms, layer by layer."""
    content, style = layer.content.energy, layer.style.energy
    return Sum(
        _scaled(layer.content.deltas, _ratio(style, content) ** 0.5),
        _scaled(layer.style.deltas, _ratio(content, style) ** 0.5),
    )


def _scaled(deltas: list[Delta], weight: float) -> list[Delta]:
    return [delta.scaled(weight) for delta in deltas]


def _ratio(energy: float, of: float) -> float:
    """Of two norms, by their squares; 1 if either side is nothing."""
    return (energy / of) ** 0.5 if energy and of else 1.0


METHODS = tuple(
    Method(name, order, about, about, "", fuse, needs=needs)
    for name, order, about, fuse, needs in (
        ("random", 101, "content off a random subspace of the style's rank", random_subspace, (STYLE_INPUT,)),
        ("shrunk", 102, "content as weak as `hard` leaves it, no direction removed", shrunk, (STYLE_INPUT,)),
        ("lowered", 103, "the stronger side lowered to the weaker, layer by layer", lowered, ()),
        ("geometric", 104, "both sides at the geometric mean of their norms, layer by layer", geometric, ()),
    )
)


@contextmanager
def controls() -> Iterator[None]:
    """Within it, the table of methods holds the controls, too."""
    with ExitStack() as undo:
        for method in METHODS:
            undo.callback(register(method))
        yield
