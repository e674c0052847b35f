"""What there is of a host: the LoRAs on its shelf, and its model."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from ..errors import HostError
from ..fusion.fused import FusedLora, Winners
from ..layers.block import Block
from ..layers.key import ModuleKey
from ..layers.weights import LoraWeights


@dataclass(frozen=True)
class LoraEntry:
    """A LoRA as the host's list has it.

    name, alias
        What `<lora:...>` takes: the file's stem, and what the file's header calls it (the stem again, if it does not).
    shorthash
        As the host writes it into `Lora hashes`; empty if the host has not read the file yet.
    metadata
        What the file's header says about it.
    namesakes
        Where it and other files of its name lie, itself first; empty if there are no others.
    """

    name: str
    alias: str
    path: str
    shorthash: str
    metadata: Mapping[str, object] = field(default_factory=dict)
    namesakes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShelfFile:
    """A LoRA that the host has found on disk.

    name
        As the host lists it.
    stamp
        Changes when the file does. Costs no reading.
    shorthash
        As the host writes it into `Lora hashes`; may be empty.
    record
        What the host itself keeps of it; None if it keeps nothing.
    metadata
        What the file's header says about it.
    namesakes
        See LoraEntry.
    """

    name: str
    path: str
    stamp: str
    shorthash: str = ""
    record: Any = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    namesakes: tuple[str, ...] = ()


class Shelf(Protocol):
    """The LoRA files of a host. May be asked from any thread."""

    @property
    def folder(self) -> str:
        """Where new LoRAs are saved."""

    def names(self) -> list[str]:
        """The stems of the LoRA files that the host knows, in alphabetical order, whatever their case."""

    def listed(self) -> list[LoraEntry]:
        """The LoRAs that the host knows, in the order of `names`. Reads no file."""

    def refresh(self) -> None:
        """Have the host look into its folders again."""

    def named_by_hash(self, shorthash: str, seconds: float = 10.0) -> str | None:
        """The name of the LoRA that has this short hash, None if none is found.

        Files that the host has not hashed yet are read for about `seconds`, the newest first.
        """

    def resolve(self, name: str) -> ShelfFile:
        """The file that `<lora:name>` means, by stem or alias. Raises NotFoundError with the nearest name."""


class Model(Protocol):
    """The model that makes the pictures. All calls come from the thread that does."""

    @property
    def checkpoint(self) -> str | None:
        """The file of the loaded model, None if none is loaded. Loads none."""

    def token(self) -> Hashable:
        """Equal for equal loaded models: deltas loaded under one token fit no other."""

    def blocks(self) -> Collection[Block]:
        """The blocks of the loaded model that LoRAs can change."""

    def dtype(self, key: ModuleKey) -> torch.dtype:
        """The number format of a layer's weight."""

    def load(self, file: ShelfFile) -> LoraWeights:
        """Read a LoRA and match it to the loaded model. Raises FileError, MismatchError."""

    def apply(self, fused: Sequence[FusedLora]) -> None:
        """Make these fusions, and no others, part of the model, beside whatever the host itself has activated.

        To be called after the host activated its own networks. Nothing is half applied: on an error (HostError)
        everything is as before.
        """

    def swap(self, fused: FusedLora, winners: Winners) -> None:
        """Give the contested layers of an applied fusion to these winners, in the middle of a picture.

        Only layers whose winner changes are touched. An applied fusion starts with its `first_winners`. Raises
        HostError; then the next `apply` or `clear` still leaves every weight as it should be.
        """

    def clear(self) -> None:
        """Leave the model as the host itself would have it."""


@dataclass(frozen=True)
class Host:
    """A program that makes pictures, as we know it.

    shelf
        None if it keeps no list of LoRAs, as a library that is handed files does not.
    """

    name: str
    model: Model
    shelf: Shelf | None


def shelf_of(host: Host) -> Shelf:
    """The shelf of a host that must have one. Raises HostError."""
    if host.shelf is None:
        raise HostError(f"{host.name} keeps no list of LoRAs, so none can be found by its name")
    return host.shelf
