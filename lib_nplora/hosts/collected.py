"""The updates that a host makes of one file, checked one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from math import prod

from torch import Tensor

from ..errors import FileError, MismatchError
from ..layers.key import ModuleKey
from ..layers.weights import DeltaMap, LoraWeights
from ..maths.delta import Delta
from ..maths.dense import DenseDelta
from ..maths.lowrank import LowRankDelta
from ..maths.remade import Making, Remade
from .protocol import ShelfFile

_ENDINGS = (
    r"[._]lora[._]|\.lora_|\.(alpha|scale|dora_scale|diff|diff_b|[wb]_norm|(set|reshape)_weight|weight|on_input)$"
)
_LYCORIS_ENDINGS = r"|\.(hada|lokr|oft)_\w+$|\.(rescale|bias\w*|[ab][12]\.weight)$"

_HUGE = 1e30
"""Energy that no update of a layer has."""


class Collected:
    """Gathers the deltas of a file. Matrices are made each time that they are asked for, the rest is held."""

    def __init__(self, file: ShelfFile) -> None:
        self.name = file.name
        self._stamp = file.stamp
        self._held: dict[ModuleKey, Delta] = {}
        self._made: dict[ModuleKey, tuple[tuple[int, ...], Making]] = {}
        self._depends_on_model = False

    def add_factors(
        self,
        key: ModuleKey,
        shape: Sequence[int] | None,
        up: Tensor,
        down: Tensor,
        mid: Tensor | None,
        scale: Callable[[], float],
    ) -> None:
        """Take the product of factors as the update of a layer, or of a slice, whose weight has this shape.

        shape
            None if the host does not tell.

        Raises FileError for factors that do not chain, MismatchError unless the update fits the layer.
        """
        try:
            kernel = (down if mid is None else mid).shape[2:]
            self._check_shape(key, shape, (up.shape[0], down.shape[1] * kernel.numel()))
            if down.shape[0] == 0:
                raise FileError(f"'{self.name}' has rank 0 in layer {key}: use another version of it")
            delta = LowRankDelta.from_factors(up, down, mid, scale())
        except (ValueError, IndexError, RuntimeError, ZeroDivisionError) as error:
            raise FileError(f"'{self.name}' is damaged in layer {key}: {error}") from error
        self._check_values(key, delta)
        self._held[key] = delta

    def add_dense(
        self, key: ModuleKey, shape: Sequence[int] | None, delta: DenseDelta, again: Making | None = None
    ) -> None:
        """Take an update that the host has calculated, and how it does so again. Raises MismatchError, FileError."""
        self._check_shape(key, shape, delta.shape)
        self._check_values(key, delta)
        self._depends_on_model = True
        factors = delta.factored()
        if factors is None and again:
            self._made[key] = delta.layer_shape, again
        else:
            self._held[key] = factors or delta

    def _check_shape(self, key: ModuleKey, shape: Sequence[int] | None, found: tuple[int, int]) -> None:
        if shape is not None and found != (shape[0], prod(shape[1:])):
            raise MismatchError(
                f"'{self.name}' is made for another model than the one that is loaded "
                f"(layer {key} does not take a {found[0]} x {found[1]} update)"
            )

    def _check_values(self, key: ModuleKey, delta: Delta) -> None:
        if not delta.is_finite:
            raise FileError(f"'{self.name}' holds values that are not finite in layer {key}: use another version of it")
        if delta.energy() > _HUGE:
            raise FileError(
                f"'{self.name}' holds values too large for weights in layer {key}: use another version of it"
            )

    def weights(self, unmatched: Iterable[str], model: Hashable) -> LoraWeights:
        """The LoRA. Raises MismatchError if too little of the file fits the model to call it a LoRA for that model."""
        names = tuple(sorted(unmatched))
        matched = len(self._held) + len(self._made)
        if matched == 0 or len(names) > matched:
            raise MismatchError(
                f"'{self.name}' is made for another model than the one that is loaded, or in a format that this "
                f"WebUI does not read ({matched} of its {matched + len(names)} modules have a layer here)"
            )
        digest = f"{self._stamp}|{model}" if self._depends_on_model else self._stamp
        made = {key: partial(Remade, shape, [(how, 1.0)]) for key, (shape, how) in self._made.items()}
        made_of = sum(how.nbytes for _, how in self._made.values())
        return LoraWeights(self.name, digest, DeltaMap(self._held, made, made_of), names)


def module_names(tensors: Iterable[str]) -> set[str]:
    """The modules that these tensors of a LoRA file belong to, as the file spells them."""
    return {re.split(_ENDINGS + _LYCORIS_ENDINGS, name)[0] for name in tensors if not name.startswith("bundle_emb.")}
