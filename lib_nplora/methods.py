"""The table of fusion methods. A new method is one pure function and one row.

A method says what becomes of the contents and the styles of one layer before they are added up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .delta import Delta
from .errors import RequestError, did_you_mean
from .subspace import project_out, projection_strength


@dataclass(frozen=True, eq=False)
class Layer:
    """What the LoRAs hold for one layer, weights included.

    contents, styles
        At least one of each, all of one shape.
    basis
        V, the styles' principal directions, (in, k) float32; None for a method that has no use for it.
    """

    contents: Sequence[Delta]
    styles: Sequence[Delta]
    basis: Tensor | None = None


@dataclass(frozen=True)
class Method:
    """A row of the table.

    fuse
        (layer, mu) -> layer, whose deltas are then added up.
    needs_basis
        Whether `fuse` reads layer.basis.
    """

    fuse: Callable[[Layer, float], Layer]
    needs_basis: bool


def null_space(layer: Layer, mu: float) -> Layer:
    """NP-LoRA: dW_s + dW_c (I - mu / (1 + mu) V V^T). arXiv 2511.11051, Eq. 26-27; `hard` (mu = infinity): Eq. 10."""
    assert layer.basis is not None
    beta = projection_strength(mu)
    return Layer([project_out(content, layer.basis, beta) for content in layer.contents], layer.styles)


def direct(layer: Layer, mu: float) -> Layer:
    """Plain weighted sum, arXiv 2511.11051, Eq. 5: what two ordinary LoRA tags give. mu has no effect."""
    return layer


METHODS = {
    "np": Method(null_space, needs_basis=True),
    "direct": Method(direct, needs_basis=False),
}


def method_named(name: str) -> Method:
    """The row called `name`. Raises RequestError."""
    try:
        return METHODS[name]
    except KeyError:
        hint = did_you_mean(name, METHODS) or f" Known: {', '.join(METHODS)}."
        raise RequestError(f"there is no method '{name}'.{hint}") from None
