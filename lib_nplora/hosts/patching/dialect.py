"""What one kind of Forge calls the things that it takes to read and to apply a LoRA."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import Any, Protocol

from torch import Tensor

from ...layers.place import Part
from .target import Target

Patches = dict[Hashable, Any]
"""The host's patches, by its own targets."""


class Dialect(Protocol):
    """One kind of Forge. A patcher is the host's, of a UNet or of a text encoder."""

    def read(self, path: str) -> Mapping[str, Tensor]:
        """The tensors of a safetensors file."""

    def renamed(self, state: dict[str, Tensor], objects: Any) -> dict[str, Tensor]:
        """A file's tensors by the names that the host gives them before it looks for their layers."""

    def names(self, part: Part, model: Any) -> dict[str, Hashable]:
        """A new table from names in LoRA files to the model's keys."""

    def load(self, state: dict[str, Tensor], names: Mapping[str, Hashable]) -> tuple[Patches, dict[str, Tensor]]:
        """The patches that tensors are for the layers of these names, and the tensors that are for none."""

    def add(self, patcher: Any, patches: Patches, filename: str, online: bool) -> Collection[Hashable]:
        """Have a patcher hold these patches, too. Returns the targets that it took."""

    def check(self) -> None:
        """Raises HostError if the loaded model takes no fusion."""

    def is_online(self, unet: Any) -> bool:
        """Whether the host would patch at each forward instead of once."""

    def merged(self, patcher: Any, patch: Any, weight: Tensor, target: Target) -> Tensor:
        """The weight, or the rows of it, with one patch. Raises what the host raises."""

    def kept(self, patcher: Any, key: str) -> Any:
        """The parameter as the checkpoint has it, None if the host has merged nothing into it."""

    def is_merged(self, patcher: Any) -> bool:
        """Whether the model's weights hold this patcher's patches."""

    def replace(self, mine: Any, source: Any, sampled: Any, keys: Collection[str]) -> None:
        """Give the parameters `keys` of `mine`, and of what is merged already, the patches that they have in `source`.

        source
            A patcher with as many patches, in the same order.
        sampled
            The one that makes the picture: `mine`, or a copy to which others may have added theirs.
        """
