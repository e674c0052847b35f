"""A LoRA file, of any spelling, as LoraWeights that are read from disk layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import FileError
from ..layers.key import ModuleKey
from ..layers.weights import DeltaMap, LoraWeights
from ..maths.delta import Delta
from . import names
from .base import Base, Weights
from .checks import checked, effective
from .hashing import sha256
from .models import Family, detect, labels
from .module import Module
from .peft_scale import PeftScales, read_scales
from .refusals import described, short, strange
from .slot import Slot
from .tensor_file import TensorFile


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
        Of its deltas, each in the shape of the weight or bias that it is for.
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


def read_lora(path: Path, base: Weights | Path | None = None) -> LoraFile:
    """Open a .safetensors file. `base` is the model, or its file, for the kinds of module that need its weights.

    Raises FileError, here for whatever names and shapes show, and when a layer is read for its values.
    """
    file = TensorFile(path)
    base = Base(base) if isinstance(base, Path) else base
    scales = read_scales(path, file.metadata)
    modules = list(_modules(file, base, scales))
    made: dict[ModuleKey, Callable[[], Delta]] = {}
    for module in modules:
        _add(made, module)
    widths = {module.slot.layer: shape[1] for module in modules if (shape := module.layer_shape) and len(shape) > 1}
    unmatched = tuple({name.split(".")[1]: None for name in file.names if names.is_ignored(name)})
    digest = whole = sha256(path)
    if base and any(module.needs_base for module in modules):
        digest = f"{whole}+{base.digest}"
    weights = LoraWeights(path.stem, digest, DeltaMap({}, made), unmatched)
    family = detect(widths, [module.name for module in modules])
    beside = frozenset(scale for module in modules if (scale := module.scale_beside) is not None)
    unread = scales.unread if beside else ()
    return LoraFile(path, whole, weights, family, file.metadata, _shapes(modules), beside - {1.0}, unread)


def _shapes(modules: Iterable[Module]) -> dict[ModuleKey, tuple[int, ...]]:
    """Of the deltas."""
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


def _modules(file: TensorFile, base: Weights | None, scales: PeftScales) -> Iterator[Module]:
    """The file's modules, in its order, checked. Raises FileError."""
    found: dict[Slot, dict[str, str]] = {}
    modules: dict[Slot, str] = {}
    for tensor, (name, role) in _split(file).items():
        slot = names.slot_of(name)
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


_TELLING = frozenset({"up", "down", "diff", "norm", "set", "bias", "oft_blocks", "oft_diag", "on_input"})
_TELLING_STARTS = ("hada_", "lokr_", "glora_")


def _split(file: TensorFile) -> dict[str, tuple[str, str]]:
    """The file's tensors, each with its module and role. Raises FileError if not all of them are a LoRA's."""
    tensors = [tensor for tensor in file.names if not names.is_ignored(tensor)]
    for tensor in tensors:
        if kind := names.refused_kind(tensor):
            raise strange(file, f"holds {kind} modules ({described(file, [tensor])}), which cannot be fused as files")
    splits = {tensor: split for tensor in tensors if (split := names.split(tensor))}
    if not any(role in _TELLING or role.startswith(_TELLING_STARTS) for _, role in splits.values()):
        raise strange(file, f"holds no LoRA of a known kind but {described(file, tensors) or 'nothing'}")
    for tensor in tensors:
        if tensor not in splits:
            raise strange(file, f"holds {described(file, [tensor])}, which is no part of a LoRA of a known kind")
    return splits
