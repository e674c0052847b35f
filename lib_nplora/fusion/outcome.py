"""What happened to the layers of a fusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from ..layers.key import ModuleKey


class Outcome(Enum):
    """What happened to a layer."""

    FUSED = "fused"
    CONTENT_ONLY = "content only"
    STYLE_ONLY = "style only"
    UNPROJECTED = "added unprojected"
    LEFT_OUT = "left out"


@dataclass(frozen=True)
class LayerReport:
    """What happened to one layer.

    content_energy, removed_energy
        Energy of the contents before, and how much of it the method took away (squared Frobenius norm). Nothing for a
        layer that is not fused.
    style_energy
        Energy of the styles.
    protected
        Share of the input's directions that the style's basis spans, 0 to 1.
    reason
        Why there is nothing to project in this layer, if so.
    weights
        What the method multiplied the content's and the style's weights with; the energies count them.
    """

    outcome: Outcome
    content_energy: float = 0.0
    style_energy: float = 0.0
    removed_energy: float = 0.0
    protected: float = 0.0
    reason: str = ""
    weights: tuple[float, float] = (1.0, 1.0)

    @property
    def removed(self) -> float:
        """Share of the content's energy that was taken away, 0 to 1."""
        return self.removed_energy / self.content_energy if self.content_energy else 0.0


@dataclass(frozen=True, eq=False)
class Summary:
    """What happened to every layer.

    not_matched
        How many modules of the files have no layer in the model.
    """

    layers: Mapping[ModuleKey, LayerReport]
    not_matched: int = 0

    def __str__(self) -> str:
        counts = Counter(layer.outcome for layer in self.layers.values())
        reasons = {layer.reason: None for layer in self.layers.values() if layer.outcome is Outcome.UNPROJECTED}
        unprojected = f"{counts[Outcome.UNPROJECTED]} added unprojected"
        if reasons:
            unprojected = f"{counts[Outcome.UNPROJECTED]} added unprojected ({'; '.join(reasons)})"
        others = f"{self.not_matched} not matched"
        if counts[Outcome.LEFT_OUT]:
            others = f"{counts[Outcome.LEFT_OUT]} left out, {self.not_matched} not matched"
        return (
            f"{counts[Outcome.FUSED]} layers fused, {counts[Outcome.CONTENT_ONLY]} content only, "
            f"{counts[Outcome.STYLE_ONLY]} style only, {unprojected}, {others}; "
            f"{100 * self.removed:.2f} % of the content's energy removed"
        )

    @property
    def any_fused(self) -> bool:
        return Outcome.FUSED in self._outcomes

    @property
    def as_asked(self) -> bool:
        """Whether everything that both sides hold was fused, and only one side, if any, has layers of its own.

        A LoRA often covers more of a model than another. But if each has layers that the other lacks, they hardly meet.
        """
        lone = {layer.outcome for layer in self.layers.values() if not layer.reason}
        apart = {Outcome.CONTENT_ONLY, Outcome.STYLE_ONLY} <= lone
        return not (apart or self.not_matched or Outcome.UNPROJECTED in self._outcomes)

    @property
    def _outcomes(self) -> set[Outcome]:
        return {layer.outcome for layer in self.layers.values()}

    @property
    def content_energy(self) -> float:
        return sum(layer.content_energy for layer in self.layers.values())

    @property
    def style_energy(self) -> float:
        return sum(layer.style_energy for layer in self.layers.values())

    @property
    def removed(self) -> float:
        """Share of the contents' energy that was taken away, over all layers, 0 to 1."""
        energy = self.content_energy
        return sum(layer.removed_energy for layer in self.layers.values()) / energy if energy else 0.0

    @property
    def protected(self) -> float:
        """Share of the directions that the style's basis spans, mean over the fused layers, 0 to 1."""
        shares = [layer.protected for layer in self.layers.values() if layer.outcome is Outcome.FUSED]
        return sum(shares) / len(shares) if shares else 0.0
