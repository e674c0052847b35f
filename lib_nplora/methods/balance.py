"""Weights that a fusion chooses itself, so that neither side drowns the other.

With |C| and |S| for the Frobenius norms of the contents' and of the styles' update of a layer, the user's weights left
aside, a layer that both sides hold is given the weights

    layer   w_c = sqrt(|S| / |C|), w_s = sqrt(|C| / |S|): both meet at the geometric mean of their norms
    down    w_c = min(1, |S| / |C|), w_s = min(1, |C| / |S|): the stronger comes down to the weaker
    whole   as `layer`, with |C|^2 and |S|^2 summed over all layers that both sides hold

The user's weights then multiply. Where one side is all zeros there is nothing to balance, and both weights are 1; so
they are in layers that only one side holds. Of several LoRAs on one side it is the norm of their weighted sum, as if
the strongest had weight 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ..maths.delta import total
from .layer import Layer, Need, Overall, Side
from .method import EQUAL, Method, SideWeights
from .parameter import Choice, Parameter, Values, check_choice


@dataclass(frozen=True)
class Energy:
    """Squared Frobenius norm of a side's update, in float64."""

    value: float

    nbytes = 32


def _relative(side: Side) -> Side:
    """The side as if its strongest LoRA had weight 1; as if all had, where all have weight 0."""
    most = max(abs(share.weight) for share in side.shares)
    weights = [share.weight / most if most else 1.0 for share in side.shares]
    return Side([replace(share, weight=w) for share, w in zip(side.shares, weights)], side.start, side.stop)


def _energy(of: Callable[[Layer], Side]) -> Need[Energy]:
    def depends_on(layer: Layer) -> object:
        side = _relative(of(layer))
        return layer.key.rows, side.identity, tuple(share.weight for share in side.shares)

    return Need("energy", depends_on, lambda layer: Energy(total(_relative(of(layer)).deltas).energy()))


CONTENT_ENERGY = _energy(lambda layer: layer.content)
STYLE_ENERGY = _energy(lambda layer: layer.style)


def _energies(layer: Layer) -> tuple[float, float]:
    return CONTENT_ENERGY.of(layer).value, STYLE_ENERGY.of(layer).value


def _summed(layers: Iterable[Layer]) -> tuple[float, float]:
    """|C|^2 and |S|^2 over the layers that both sides hold."""
    found = [_energies(layer) for layer in layers if layer.is_shared]
    return sum(content for content, _ in found), sum(style for _, style in found)


ALL_ENERGIES = Overall("energies of all layers", _summed)


def meeting(content: float, style: float) -> SideWeights:
    """Weights that bring squared norms (`content`, `style`) to their geometric mean."""
    if not (content and style):
        return EQUAL
    ratio = math.sqrt(content / style)
    return 1 / math.sqrt(ratio), math.sqrt(ratio)


def down(content: float, style: float) -> SideWeights:
    """Weights that bring the larger of two squared norms to the smaller."""
    if not (content and style):
        return EQUAL
    ratio = math.sqrt(content / style)
    return min(1.0, 1 / ratio), min(1.0, ratio)


_BALANCES: dict[str, Callable[[Layer], SideWeights]] = {
    "off": lambda layer: EQUAL,
    "layer": lambda layer: meeting(*_energies(layer)),
    "down": lambda layer: down(*_energies(layer)),
    "whole": lambda layer: meeting(*ALL_ENERGIES.of(layer)),
}

BALANCE = Parameter(
    "balance",
    lambda text: check_choice("balance", text, _BALANCES),
    default="off",
    words="makes both sides equally strong",
    takes="off, layer, down or whole",
    widget=Choice(tuple(_BALANCES)),
    label="Balance",
    trials=tuple(_BALANCES),
)


def weigh(layer: Layer, values: Values) -> SideWeights:
    """The weights of a layer that both sides hold."""
    return _BALANCES[values[BALANCE]](layer)


def _asked(values: Values) -> str:
    return "" if values[BALANCE] == BALANCE.default else f"{BALANCE.name}={values.text(BALANCE)}"


def balanced(*methods: Method) -> tuple[Method, ...]:
    """The methods, with `balance` among their parameters."""
    return tuple(
        replace(
            method,
            parameters=(*method.parameters, BALANCE),
            needs=(*method.needs, CONTENT_ENERGY, STYLE_ENERGY, ALL_ENERGIES),
            weigh=weigh,
            weighed_by=_asked,
            would_weigh=f"{BALANCE.name}=layer",
        )
        for method in methods
    )
