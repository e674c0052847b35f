"""What a LoRA holds, and what a fusion gives, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal

from .delta import Delta
from .selection import Schedule, Winner

Part = Literal["unet", "te"]


@dataclass(frozen=True)
class ModuleKey:
    """A layer's identity, opaque to the core.

    name
        Whatever the host or the file format tells its layers apart by.
    part
        The diffusion model (`unet`) or a text encoder (`te`).
    rows
        (start, stop) of the layer's output rows, for a LoRA that has q, k and v of a fused layer one by one; None for
        the whole layer.
    """

    name: Hashable
    part: Part
    rows: tuple[int, int] | None = None

    @property
    def layer(self) -> ModuleKey:
        """The whole layer."""
        return replace(self, rows=None)

    def __str__(self) -> str:
        return f"{self.name}[{self.rows[0]}:{self.rows[1]}]" if self.rows else str(self.name)


Winners = Mapping[ModuleKey, Winner]
"""Who wins, by contested layer."""


class DeltaMap(Mapping[ModuleKey, Delta]):
    """Deltas by layer, some of which are not held but made each time they are asked for."""

    def __init__(self, held: Mapping[ModuleKey, Delta], made: Mapping[ModuleKey, Callable[[], Delta]]) -> None:
        self._held = held
        self._made = made

    def __len__(self) -> int:
        return len(self._held) + len(self._made)

    def __iter__(self) -> Iterator[ModuleKey]:
        yield from self._held
        yield from self._made

    def __contains__(self, key: object) -> bool:
        return key in self._held or key in self._made

    def __getitem__(self, key: ModuleKey) -> Delta:
        return self._held[key] if key in self._held else self._made[key]()

    @property
    def made(self) -> int:
        """How many are not held."""
        return len(self._made)

    @property
    def nbytes(self) -> int:
        """Of what is held."""
        return sum(delta.nbytes for delta in self._held.values())


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """One LoRA, read.

    digest
        Stands for the file's content, and for the model's where deltas depend on it: equal digests, equal deltas.
    unmatched
        Names of modules in the file that no layer of the model answers to.
    """

    name: str
    digest: str
    deltas: Mapping[ModuleKey, Delta]
    unmatched: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        if isinstance(self.deltas, DeltaMap):
            return self.deltas.nbytes
        return sum(delta.nbytes for delta in self.deltas.values())


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
        Of the contents before, and how much of it the method took away (squared Frobenius norm). For a layer that is
        not fused, nothing is removed.
    style_energy
        Of the styles.
    protected
        Share of the input's directions that the style's basis spans, 0 to 1.
    reason
        Why there is nothing to project in this layer, if so.
    """

    outcome: Outcome
    content_energy: float = 0.0
    style_energy: float = 0.0
    removed_energy: float = 0.0
    protected: float = 0.0
    reason: str = ""

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
        unprojected = (layer for layer in self.layers.values() if layer.outcome is Outcome.UNPROJECTED)
        reasons = dict.fromkeys(layer.reason for layer in unprojected)
        left_out = f"{counts[Outcome.LEFT_OUT]} left out, " if counts[Outcome.LEFT_OUT] else ""
        because = f" ({'; '.join(reasons)})" if reasons else ""
        return (
            f"{counts[Outcome.FUSED]} layers fused, {counts[Outcome.CONTENT_ONLY]} content only, "
            f"{counts[Outcome.STYLE_ONLY]} style only, {counts[Outcome.UNPROJECTED]} added unprojected{because}, "
            f"{left_out}{self.not_matched} not matched; {100 * self.removed:.2f} % of the content's energy removed"
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


@dataclass(frozen=True, eq=False)
class FusedLora:
    """A fusion: the update of each layer, ready to be applied or stored.

    fingerprint
        Stands for everything that changes the deltas: equal fingerprints, equal weights.
    deltas
        By layer; of one that is contested, the update while the content wins.
    rivals
        The updates of the contested layers while the style wins.
    schedule
        Who wins which of them when; None if nothing is contested.
    """

    title: str
    fingerprint: str
    deltas: Mapping[ModuleKey, Delta]
    summary: Summary
    rivals: Mapping[ModuleKey, Delta] = field(default_factory=dict)
    schedule: Schedule | None = None

    @property
    def nbytes(self) -> int:
        return sum(delta.nbytes for delta in (*self.deltas.values(), *self.rivals.values()))

    def first_winners(self) -> Winners:
        """Those of step 0, which are the same however many steps follow."""
        return self.schedule.winners(0, 1) if self.schedule else {}

    def update(self, key: ModuleKey, winners: Winners) -> Delta:
        """Of a layer, while these win."""
        return self.rivals[key] if winners.get(key) == "style" else self.deltas[key]
