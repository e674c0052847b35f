"""The kinds of network that a module of a file can be. A new kind is one row and one function in formulas.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..maths.products import Factors
from . import factors, formulas
from .formulas import Tensors

Roles = frozenset[str]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Kind:
    """A row of the table.

    needs
        Sets of roles, one of which a module must hold in full.
    may
        Roles that it may hold besides. Every kind may have a bias.
    formula
        See formulas.py; None for factors, which stay as they are.
    rank
        What alpha is divided by, None if alpha is no scale of this kind, or is without effect.
    factors
        See factors.py; None if the delta can have any rank.
    needs_base
        Whether the delta depends on the weight of the model's layer.
    peft
        Whether PEFT writes such modules, whose scale is not among the tensors.
    """

    label: str
    needs: tuple[Roles, ...]
    may: Roles = frozenset()
    formula: Callable[[Tensors, Tensor | None], Tensor] | None = None
    factors: Callable[[Tensors, Tensor | None], Factors | None] | None = None
    rank: Callable[[Shapes], int | None] = lambda shapes: None
    needs_base: bool = False
    peft: bool = False

    @property
    def is_bias(self) -> bool:
        return self.needs == (frozenset({"bias"}),)

    def missing(self, roles: Roles) -> Roles:
        """What a module of these roles lacks most obviously."""
        lacking = [need - roles for need in self.needs]
        return min(lacking, key=len)


def _lokr_rank(shapes: Shapes) -> int | None:
    """The rank of the larger half; wholes have none."""
    return next((shapes[name][0] for name in ("lokr_w2_b", "lokr_w1_b") if name in shapes), None)


def _glora_rank(shapes: Shapes) -> int:
    return min(shapes["glora_a1"][:2])


_SPARSE: Roles = frozenset({"sparse_values", "sparse_indices", "sparse_size"})
_WEIGHTED: Roles = _SPARSE | {"alpha", "scale", "dora_scale", "magnitude"}
_LOKR_1 = (frozenset({"lokr_w1"}), frozenset({"lokr_w1_a", "lokr_w1_b"}))
_LOKR_2 = (
    frozenset({"lokr_w2"}),
    frozenset({"lokr_w2_a", "lokr_w2_b", "lokr_t2"}),
    frozenset({"lokr_w2_a", "lokr_w2_b"}),
)
_HADA: Roles = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})

LORA = Kind(
    "LoRA",
    (frozenset({"up", "down"}),),
    _WEIGHTED | {"mid", "lora_bias"},
    rank=lambda shapes: shapes["down"][0],
    peft=True,
)

_BOFT = Kind("BOFT", (frozenset({"oft_blocks"}),), frozenset({"alpha", "rescale"}), formulas.boft, needs_base=True)

KINDS = (
    LORA,
    Kind(
        "LoHa",
        (_HADA | {"hada_t1", "hada_t2"}, _HADA),
        _WEIGHTED,
        formulas.loha,
        factors.loha,
        rank=lambda shapes: shapes["hada_w1_b"][0],
        peft=True,
    ),
    Kind(
        "LoKr",
        tuple(one | two for one in _LOKR_1 for two in _LOKR_2),
        _WEIGHTED,
        formulas.lokr,
        factors.lokr,
        rank=_lokr_rank,
        peft=True,
    ),
    Kind("full", (frozenset({"diff"}),), frozenset({"scale"}), formulas.full),
    Kind("norm", (frozenset({"norm"}),), frozenset(), formulas.norm),
    Kind("weight-replacing", (frozenset({"set"}),), frozenset(), formulas.replaced, needs_base=True),
    Kind(
        "GLoRA",
        (frozenset({"glora_a1", "glora_a2", "glora_b1", "glora_b2"}),),
        frozenset({"glora_bm", "alpha", "scale"}),
        formulas.glora,
        factors.glora,
        rank=_glora_rank,
        needs_base=True,
    ),
    Kind("IA3", (frozenset({"factor", "on_input"}),), frozenset(), formulas.ia3, needs_base=True),
    Kind("OFT", (frozenset({"oft_diag"}), frozenset({"oft_blocks"})), frozenset({"alpha", "rescale"}), formulas.oft,
         needs_base=True),
    Kind("bias", (frozenset({"bias"}),)),
)  # fmt: skip
"""A module is of the first kind of which it holds a role that is needed."""

SCALARS = ("alpha", "scale", "on_input")
"""Roles of tensors that hold one number."""

FREE = frozenset({"sparse_indices", "sparse_size", *SCALARS})
"""Roles of tensors that may hold whole numbers."""


def kind_of(shapes: Shapes) -> Kind | None:
    """The kind of a module that holds tensors of these roles and shapes."""
    kind = next((kind for kind in KINDS if any(need & shapes.keys() - {"factor"} for need in kind.needs)), None)
    return _BOFT if kind and len(shapes.get("oft_blocks", ())) == 4 else kind


def is_decomposed(shapes: Shapes) -> bool:
    """Whether the module is a DoRA on top of its kind."""
    return not shapes.keys().isdisjoint(formulas.MAGNITUDES)
