"""How a file spells the names of its modules, so that a pair that spells alike needs no translation.

The words of a module are its own name behind a canonical prefix, with underscores for dots: `lora_unet_layers_0_attn_q`
for `diffusion_model.layers.0.attn.q`. Nothing of the model has to be known for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..layers.key import ModuleKey
from ..maths.delta import Delta
from . import names
from .models import PREFIX, Spelling
from .slot import BIAS

_SPELLINGS: Mapping[str, Spelling] = {PREFIX: "kohya", "diffusion_model.": "comfyui", "transformer.": "diffusers"}
"""How names of a diffusion model's layers begin -> the spelling that they are in."""


def words_of(module: str) -> str:
    """The words of a module that a file names so."""
    _, part, rest = names.taken_apart(module)
    return part + names.flat(rest)


def is_flat(prefix: str) -> bool:
    """Whether names behind this prefix have underscores for dots."""
    return prefix.endswith("_")


@dataclass(frozen=True)
class FileNames:
    """How layers are named in a file.

    prefixes
        What stands before the layers of a part, by the canonical prefix of that: `diffusion_model.` by `lora_unet_`.
    layers
        Words -> (canonical prefix, what stands behind the file's own).
    """

    prefixes: Mapping[str, str]
    layers: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, modules: Iterable[str], wrapping: str = "") -> FileNames:
        """How a file that names its modules so spells them; before every name it has `wrapping`."""
        prefixes: dict[str, str] = {}
        layers: dict[str, tuple[str, str]] = {}
        for module in modules:
            prefix, part, rest = names.taken_apart(module)
            prefixes.setdefault(part, wrapping + prefix)
            layers[part + names.flat(rest)] = part, rest
        return cls(prefixes, layers)

    @property
    def spelling(self) -> Spelling | None:
        """The spelling whose names of a diffusion model's layers begin so; None if it is none of those."""
        return _SPELLINGS.get(self.prefixes.get(PREFIX, ""))

    def beside(self, other: FileNames) -> FileNames:
        """How a file with the layers of both spells them: as this one does, but flat if one is flat."""
        prefixes = {**other.prefixes, **self.prefixes}
        flat = {part: prefix for part, prefix in other.prefixes.items() if is_flat(prefix)}
        mixed = {part: prefix for part, prefix in flat.items() if not is_flat(prefixes[part])}
        return FileNames({**prefixes, **mixed}, {**other.layers, **self.layers})

    def entries(self, layers: Mapping[ModuleKey, Delta]) -> dict[str, Delta]:
        """Layers by their words -> by the names under which a file holds them."""
        found = {}
        for key, delta in layers.items():
            words = str(key.name)
            end = "" if words in self.layers else BIAS
            part, rest = self.layers[words.removesuffix(end)]
            prefix = self.prefixes[part]
            found[prefix + (names.flat(rest) if is_flat(prefix) else rest) + end] = delta
        return found
