"""What a fusion gives, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..layers.key import ModuleKey
from ..maths.delta import Delta
from ..methods.selection import Schedule, Winner
from .outcome import Summary

Winners = Mapping[ModuleKey, Winner]
"""Who wins, by contested layer."""


@dataclass(frozen=True, eq=False)
class FusedLora:
    """A fusion: the update of each layer, ready to be applied or stored.

    fingerprint
        Stands for everything that changes the deltas: equal fingerprints, equal weights.
    deltas
        The update of each layer; of one that is contested, while the content wins.
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
        """The update of a layer while these win."""
        return self.rivals[key] if winners.get(key) == "style" else self.deltas[key]
