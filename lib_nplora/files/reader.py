"""A LoRA file, of any spelling, as LoraWeights that are read from disk layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ..errors import FileError
from ..layers.key import ModuleKey
from ..layers.weights import DeltaMap, LoraWeights
from ..maths.delta import Delta
from . import names
from .base import Base, Weights
from .checks import checked, effective
from .hashing import sha256
from .models import Family, detected, labels
from .module import Module
from .opened import Opened, open_lora
from .peft_scale import PeftScales, read_scales
from .refusals import short, strange
from .slot import Slot
from .text_encoders import is_text
from .words import words_of


@dataclass(frozen=True, eq=False)
class LoraFile:
    """A LoRA file whose names and shapes are checked; its values are read when weights.deltas is asked for them.

    sha256
        The file's. weights.digest is the same unless deltas depend on a checkpoint.
    family
        The model family it is made for, None if nothing tells.
    metadata
        What the file's header says about it.
    shapes
        What its deltas are shaped like: the weight or bias that each is for.
    scales_beside
        Other than 1, of modules whose scale stands beside the tensors alone, where WebUIs do not look.
    unread
        Fields of the header that should tell a scale and do not, as `name=value`.
    """

    path: Path
    sha256: str
    weights: LoraWeights
    family: Family | None
    metadata: Mapping[str, str]
    shapes: Mapping[ModuleKey, tuple[int, ...]]
    scales_beside: frozenset[float]
    unread: tuple[str, ...]


def read_lora(path: Path, base: Weights | Path | None = None, names_apart: bool = True) -> LoraFile:
    """Open a .safetensors file. `base` is the model, or its file, for the kinds of module that need its weights.

    names_apart
        Whether layers of families that have canonical names of their own get those.

    Raises FileError, here for whatever names and shapes show, and when a layer is read for its values.
    """
    opened = open_lora(path)
    family = detected(opened.evidence)
    if family and family.is_apart and not names_apart:
        family = None
    return read_opened(opened, as_base(base, family), family)


def as_base(base: Weights | Path | None, family: Family | None) -> Weights | None:
    """The model, its file opened if it is one. Raises FileError."""
    return Base(base, family) if isinstance(base, Path) else base


def read_opened(opened: Opened, base: Weights | None, family: Family | None, by_words: bool = False) -> LoraFile:
    """Understand the modules of a file that is open: by canonical names, or by the words of its own names.

    Raises what `read_lora` raises.
    """
    file = opened.file
    scales = read_scales(file.path, file.metadata)
    if by_words:
        modules = list(_modules(opened, _Renamed.of(base, opened, family), scales, lambda name: Slot(words_of(name))))
    else:
        kept = text_of_others(opened, family)
        modules = list(
            _modules(
                opened,
                base,
                scales,
                lambda name: Slot(words_of(name)) if name in kept else names.slot_of(name, family),
            )
        )
    made: dict[ModuleKey, Callable[[], Delta]] = {}
    for module in modules:
        _add(made, module)
    if family is None:
        widths = {module.slot.layer: shape[1] for module in modules if (shape := module.layer_shape) and len(shape) > 1}
        family = detected(replace(opened.evidence, widths=widths))
    unmatched = tuple({name.split(".")[1]: None for name in file.names if names.is_ignored(name)})
    digest = whole = sha256(file.path)
    if base and any(module.needs_base for module in modules):
        digest = f"{whole}+{base.digest}"
    weights = LoraWeights(file.path.stem, digest, DeltaMap({}, made), unmatched)
    beside = frozenset(scale for module in modules if (scale := module.scale_beside) is not None)
    unread = scales.unread if beside else ()
    return LoraFile(file.path, whole, weights, family, file.metadata, _shapes(modules), beside - {1.0}, unread)


def text_of_others(opened: Opened, family: Family | None) -> list[str]:
    """The modules of a text encoder of which only the names are known: a language model's, of newer families."""
    if family is None or not family.is_apart:
        return []
    return [module for module, words in opened.words.items() if is_text(words) and names.slot_of(module) is None]


@dataclass(frozen=True, eq=False)
class _Renamed:
    """See Weights: those of a model, asked for by the words of a file."""

    base: Weights
    slots: Mapping[str, Slot]

    @classmethod
    def of(cls, base: Weights | None, opened: Opened, family: Family | None) -> _Renamed | None:
        slots = {words: names.slot_of(module, family) for module, words in opened.words.items()}
        return cls(base, {words: slot for words, slot in slots.items() if slot}) if base is not None else None

    @property
    def name(self) -> str:
        """See Weights."""
        return self.base.name

    @property
    def digest(self) -> str:
        """See Weights."""
        return self.base.digest

    def shape(self, slot: Slot) -> tuple[int, ...]:
        """See Weights."""
        return self.base.shape(self.slots.get(slot.layer, slot))

    def weight(self, slot: Slot) -> Tensor:
        """See Weights."""
        return self.base.weight(self.slots.get(slot.layer, slot))


def _shapes(modules: Iterable[Module]) -> dict[ModuleKey, tuple[int, ...]]:
    """The shape of the weight or bias that each delta is for."""
    found = {module.key: module.layer_shape for module in modules if module.layer_shape is not None}
    biases = {module.bias_key: module.bias_shape for module in modules}
    return {**found, **{key: shape for key, shape in biases.items() if key and shape}}


def _add(made: dict[ModuleKey, Callable[[], Delta]], module: Module) -> None:
    """Enter what the module holds. Raises FileError if the file holds it elsewhere, too."""
    entries: list[tuple[ModuleKey, Callable[[], Delta]]] = []
    if module.layer_shape is not None:
        entries.append((module.key, module.delta))
    if (bias := module.bias_key) is not None:
        entries.append((bias, module.bias))
    for key, read in entries:
        if key in made:
            raise FileError(f"'{module.file.path.name}' holds layer {key} twice: download or save it again")
        made[key] = read


def _modules(
    opened: Opened, base: Weights | None, scales: PeftScales, slot_of: Callable[[str], Slot | None]
) -> Iterator[Module]:
    """The file's modules, in its order, checked. Raises FileError."""
    file = opened.file
    found: dict[Slot, dict[str, str]] = {}
    modules: dict[Slot, str] = {}
    for tensor, (name, role) in opened.tensors.items():
        slot = slot_of(name)
        if slot is None:
            raise strange(
                file,
                f"holds layer {short(name)} ({role} {file.shapes[tensor]}), which is in no UNet, transformer or text "
                f"encoder of {labels('or')}",
            )
        tensors = found.setdefault(slot, {})
        if role in tensors:
            raise FileError(
                f"'{file.path.name}' holds one thing twice, as {tensors[role]} and as {tensor}: save it with one of "
                "them"
            )
        tensors[role] = tensor
        if role != "alpha":
            modules[slot] = name
    if not (kept := {slot: left for slot, tensors in found.items() if (left := effective(file, tensors))}):
        raise FileError(f"'{file.path.name}' changes nothing, since all its layers are of rank 0: choose another LoRA")
    for slot, tensors in kept.items():
        yield checked(file, base, scales, modules.get(slot, ""), slot, tensors)
