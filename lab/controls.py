"""Methods that no user needs: the controls without which nothing is claimed of one that is for users.

`with controls():` adds them to the table of methods, so that they go the same way as any other.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch

from lib_nplora.maths.delta import total
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.maths.subspace import project_out, right_svd
from lib_nplora.methods.balance import down, meeting
from lib_nplora.methods.bases import STYLE_INPUT
from lib_nplora.methods.layer import Layer, Side
from lib_nplora.methods.method import Method, SideWeights, Sum, added_up
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


def spectral(layer: Layer, values: Values, weigh: Callable[[float, float], SideWeights]) -> Sum:
    """Both sides weighed as by `balance`, by spectral norms in place of Frobenius norms."""
    return added_up(layer.weighed(*weigh(_largest(layer.content), _largest(layer.style))))


def _largest(side: Side) -> float:
    """The squared spectral norm of a side's update."""
    s = right_svd([total(side.deltas)]).s
    return float(s[0]) ** 2 if len(s) else 0.0


def _ratio(energy: float, of: float) -> float:
    """Ratio of two norms, by their squares; 1 if either side is nothing."""
    return (energy / of) ** 0.5 if energy and of else 1.0


METHODS = tuple(
    Method(name, order, about, about, "", fuse, needs=needs)
    for name, order, about, fuse, needs in (
        ("random", 101, "content off a random subspace of the style's rank", random_subspace, (STYLE_INPUT,)),
        ("shrunk", 102, "content as weak as `hard` leaves it, no direction removed", shrunk, (STYLE_INPUT,)),
        ("spectral", 103, "`balance=layer` by spectral norms", partial(spectral, weigh=meeting), ()),
        ("spectraldown", 104, "`balance=down` by spectral norms", partial(spectral, weigh=down), ()),
    )
)


@contextmanager
def controls() -> Iterator[None]:
    """Within it, the table of methods holds the controls, too."""
    with ExitStack() as undo:
        for method in METHODS:
            undo.callback(register(method))
        yield
