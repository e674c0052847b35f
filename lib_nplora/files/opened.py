"""A LoRA file whose tensors are told apart, before its modules are understood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from . import names
from .kinds import Shapes, is_decomposed, kind_of
from .models import Evidence, Family, header_label
from .models.evidence import Size
from .refusals import described, strange
from .tensor_file import TensorFile
from .words import FileNames, words_of

_TELLING = frozenset({"up", "down", "diff", "norm", "set", "bias", "oft_blocks", "oft_diag", "on_input"})
_TELLING_STARTS = ("hada_", "lokr_", "glora_")
_WRAPPING = "base_model.model."
"""How PEFT's own files name what it wraps."""


@dataclass(frozen=True, eq=False)
class Opened:
    """See above.

    tensors
        Tensor -> the module's name as the file spells it, and the tensor's role.
    """

    file: TensorFile
    tensors: Mapping[str, tuple[str, str]]

    @cached_property
    def words(self) -> dict[str, str]:
        """Module -> its words, of the modules that hold more than a scale."""
        return {module: words_of(module) for module, role in self.tensors.values() if role != "alpha"}

    @property
    def file_names(self) -> FileNames:
        """How the file names its layers."""
        wrapped = all(tensor.startswith(_WRAPPING) for tensor in self.tensors)
        return FileNames.of(self.words, _WRAPPING if wrapped else "")

    @property
    def is_plain(self) -> bool:
        """Whether the names hold nothing but the layer's, so that they can be written as they are."""
        return not any("processor" in module or role == "set" for module, role in self.tensors.values())

    @cached_property
    def header(self) -> str | None:
        """The label of the family that the header names."""
        return header_label(self.file.metadata)

    @cached_property
    def evidence(self) -> Evidence:
        """What tells the family that the LoRA is made for."""
        found = {module: size for module, shapes in self._shapes.items() if (size := _size(shapes))}
        widths = {slot.layer: found[module][1] for module in found if (slot := names.slot_of(module))}
        sizes = {self.words[module]: size for module, size in found.items() if module in self.words}
        return Evidence(widths, "\n".join(self.words), sizes, self.header)

    @property
    def needs_base(self) -> bool:
        """Whether some module is of a kind that depends on the model's weights."""
        kinds = ((kind_of(shapes), shapes) for shapes in self._shapes.values())
        return any((kind and kind.needs_base) or is_decomposed(shapes) for kind, shapes in kinds)

    @cached_property
    def _shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Module -> role -> shape of the tensor."""
        found: dict[str, dict[str, tuple[int, ...]]] = {}
        for tensor, (module, role) in self.tensors.items():
            found.setdefault(module, {})[role] = self.file.shapes[tensor]
        return found

    def translated(self, family: Family | None) -> dict[str, str] | None:
        """Words -> canonical names of layers of that family, None unless all have one."""
        slots = {words: names.slot_of(module, family) for module, words in self.words.items()}
        return {words: slot.layer for words, slot in slots.items() if slot} if all(slots.values()) else None


def open_lora(path: Path) -> Opened:
    """Raises FileError if the file cannot be opened, or if not all of its tensors are a LoRA's."""
    file = TensorFile(path)
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
    return Opened(file, splits)


_FACTORS = (("up", "down"), ("hada_w1_a", "hada_w1_b"))


def _size(shapes: Shapes) -> Size | None:
    """Rows and columns of the weight that a module is for, as far as its tensors' shapes tell."""
    if "diff" in shapes:
        return _matrix(shapes["diff"])
    for up, down in _FACTORS:
        if up in shapes and down in shapes:
            return _product(shapes[up], shapes[down])
    first, second = (
        _matrix(shapes[f"lokr_{w}"])
        if f"lokr_{w}" in shapes
        else _product(shapes.get(f"lokr_{w}_a", ()), shapes.get(f"lokr_{w}_b", ()))
        for w in ("w1", "w2")
    )
    return (first[0] * second[0], first[1] * second[1]) if first and second else None


def _product(up: tuple[int, ...], down: tuple[int, ...]) -> Size | None:
    return (up[0], down[1]) if len(up) > 1 and len(down) > 1 and 0 not in up + down else None


def _matrix(shape: tuple[int, ...]) -> Size | None:
    return (shape[0], shape[1]) if len(shape) > 1 and 0 not in shape else None
