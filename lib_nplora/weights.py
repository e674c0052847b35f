"""What a LoRA holds, and what a fusion gives, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from .lowrank import LowRankDelta

Part = Literal["unet", "te"]


@dataclass(frozen=True)
class ModuleKey:
    """A layer's identity, opaque to the core.

    name
        Whatever the host or the file format tells its layers apart by.
    part
        The diffusion model (`unet`) or a text encoder (`te`).
    """

    name: Hashable
    part: Part


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """One LoRA, read.

    digest
        Stands for the file's content: equal digests, equal deltas.
    unmatched
        Names of modules in the file that no layer of the model answers to.
    """

    name: str
    digest: str
    deltas: Mapping[ModuleKey, LowRankDelta]
    unmatched: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(delta.nbytes for delta in self.deltas.values())


class Outcome(Enum):
    """What happened to a layer."""

    FUSED = "fused"
    CONTENT_ONLY = "content only"
    STYLE_ONLY = "style only"


@dataclass(frozen=True)
class LayerReport:
    """What happened to one layer.

    content_energy, removed_energy
        Of the contents before, and how much of it the method took away (squared Frobenius norm). For a layer that is
        not fused, nothing is removed.
    """

    outcome: Outcome
    content_energy: float = 0.0
    removed_energy: float = 0.0

    @property
    def removed(self) -> float:
        """Share of the content's energy that was taken away, 0 to 1."""
        return self.removed_energy / self.content_energy if self.content_energy else 0.0


@dataclass(frozen=True, eq=False)
class Summary:
    """What happened to every layer."""

    layers: Mapping[ModuleKey, LayerReport]

    def __str__(self) -> str:
        counts = Counter(layer.outcome for layer in self.layers.values())
        return (
            f"{counts[Outcome.FUSED]} layers fused, {counts[Outcome.CONTENT_ONLY]} content only, "
            f"{counts[Outcome.STYLE_ONLY]} style only; {100 * self.removed:.2f} % of the content's energy removed"
        )

    @property
    def any_fused(self) -> bool:
        return Outcome.FUSED in self._outcomes

    @property
    def both_alone(self) -> bool:
        """Whether each side has layers that the other lacks, as files that split a model differently do."""
        return {Outcome.CONTENT_ONLY, Outcome.STYLE_ONLY} <= self._outcomes

    @property
    def _outcomes(self) -> set[Outcome]:
        return {layer.outcome for layer in self.layers.values()}

    @property
    def removed(self) -> float:
        """Share of the contents' energy that was taken away, over all layers, 0 to 1."""
        energy = sum(layer.content_energy for layer in self.layers.values())
        return sum(layer.removed_energy for layer in self.layers.values()) / energy if energy else 0.0


@dataclass(frozen=True, eq=False)
class FusedLora:
    """A fusion: the update of each layer, ready to be applied or stored.

    fingerprint
        Stands for everything that changes the deltas: equal fingerprints, equal weights.
    """

    title: str
    fingerprint: str
    deltas: Mapping[ModuleKey, LowRankDelta]
    summary: Summary

    @property
    def nbytes(self) -> int:
        return sum(delta.nbytes for delta in self.deltas.values())
