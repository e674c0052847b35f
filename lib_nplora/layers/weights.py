"""What a LoRA holds, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..maths.delta import Delta, equal
from .key import ModuleKey


class DeltaMap(Mapping[ModuleKey, Delta]):
    """Deltas by layer, some of which are not held but made each time they are asked for.

    nbytes
        Bytes of what is held, and of what the others are made of in memory.
    """

    def __init__(
        self, held: Mapping[ModuleKey, Delta], made: Mapping[ModuleKey, Callable[[], Delta]], made_of: int = 0
    ) -> None:
        self._held = held
        self._made = made
        self.nbytes = made_of + sum(delta.nbytes for delta in held.values())

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

    def is_same(self, other: LoraWeights) -> bool:
        """Whether the other changes a model just as this one does, as a copy of its file does.

        Stops at the first layer that differs.
        """
        if self.digest == other.digest:
            return True
        same_layers = self.deltas.keys() == other.deltas.keys()
        return same_layers and all(equal(delta, other.deltas[key]) for key, delta in self.deltas.items())
