"""What transformers such as Flux and SD 3 have in common: how their files name layers, and which they hold in slices.

Facts: diffusers 0.42 loaders/lora_conversion_utils.py and scripts/convert_sd3_to_diffusers.py; the model code of Black
Forest Labs (BFL), Stability AI (SAI) and XLabs. Canonical is diffusers' naming with q, k and v fused, as BFL and SAI
have them, since all hosts but diffusers hold them so: `lora_unet_transformer_blocks_0_attn_qkv`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

from ...errors import FileError
from ...layers.block import Block
from ...layers.key import ModuleKey
from ...maths.delta import Delta, placed, total
from .. import text_encoders
from ..slot import BIAS, MLP, MLP_RATIO, Slot, swapped
from .evidence import OFTEN
from .family import PREFIX, Evidence, Family, Spelling
from .written import entries, flat

BARE = ("(?:single_)?transformer_blocks", "time_text_embed", "(?:x|context)_embedder", "norm_out", "proj_out")
"""How diffusers' names start that have no prefix."""

Slices = tuple[int, int]
_Tails = Mapping[str, tuple[str, "Slices | None"]]


@dataclass(frozen=True)
class Blocks:
    """One kind of block.

    theirs
        What the model's first authors call these blocks.
    ours
        What diffusers calls them.
    tails
        Layers of a block: their name -> diffusers', with q, k and v fused.
    fused
        Layers that diffusers has in slices: fused name -> the slices, in the order of their rows.
    others
        Further names of theirs, underscores for dots -> (our name likewise, slices).
    """

    theirs: str
    ours: str
    tails: Mapping[str, str]
    fused: Mapping[str, tuple[str, ...]]
    others: _Tails = field(default_factory=dict)


@dataclass(frozen=True)
class Names:
    """How files call the layers of one model.

    blocks
        Its kinds of blocks.
    singles
        Layers outside of blocks: their name -> diffusers'.
    swapped
        Names of theirs, underscores for dots, of layers whose rows are shift, scale where diffusers has scale, shift.
    """

    blocks: tuple[Blocks, ...]
    singles: Mapping[str, str]
    swapped: frozenset[str]

    @cached_property
    def _by_block(self) -> dict[str, tuple[str, _Tails]]:
        """Blocks as files call them -> as diffusers does, and their layers: canonical tail, slices."""
        theirs = {one.theirs: (one.ours, {**_whole(one.tails), **one.others}) for one in self.blocks}
        return {**theirs, **{one.ours: (one.ours, _slices(one.fused)) for one in self.blocks}}

    @cached_property
    def _dotted_tails(self) -> dict[str, str]:
        return {flat(name): name for one in self.blocks for name in one.tails.values()}

    @cached_property
    def _dotted_singles(self) -> dict[str, str]:
        return {flat(name): name for name in self.singles.values()}

    @cached_property
    def _fused(self) -> dict[str, tuple[str, ...]]:
        return {name: slices for one in self.blocks for name, slices in one.fused.items()}

    def slot_of(self, rest: str) -> Slot | None:
        """The slot of a layer named `rest`, dots already underscores; None if the model has no such layer."""
        if rest.endswith("_norm_scale"):
            rest = rest.removesuffix("_scale")
        if match := re.fullmatch(rf"({'|'.join(self._by_block)})_(\d+)_(.+)", rest):
            block, tails = self._by_block[match[1]]
            tail, slices = tails.get(match[3], (match[3], None))
            if tail not in self._dotted_tails:
                return None
            return Slot(f"{PREFIX}{block}_{match[2]}_{tail}", slices, match[3] in self.swapped)
        singles = _whole(self.singles)
        if rest in singles:
            return Slot(f"{PREFIX}{singles[rest][0]}", None, rest in self.swapped)
        return Slot(f"{PREFIX}{rest}") if rest in self._dotted_singles else None

    def in_diffusers(self, layer: str) -> str:
        """The name in diffusers of a layer by its canonical name, with q, k and v fused. Raises FileError."""
        rest = layer.removeprefix(PREFIX)
        match = re.fullmatch(r"(\w*?blocks)_(\d+)_(.+)", rest)
        if match and match[3] in self._dotted_tails:
            return f"{match[1]}.{match[2]}.{self._dotted_tails[match[3]]}"
        if not match and rest in self._dotted_singles:
            return self._dotted_singles[rest]
        raise FileError(f"layer {layer} is of no model that can be written: use LoRAs for Flux or SD 3")

    def slice_count(self, layer: str) -> int:
        """In how many slices files may hold the layer of this canonical name; 0 for none."""
        match = re.fullmatch(r"\w*?blocks_\d+_(.+)", layer.removeprefix(PREFIX))
        return len(self._fused.get(self._dotted_tails.get(match[1], ""), ())) if match else 0

    def first(self, layer: str) -> str:
        """What the model's first authors call a layer, by its canonical name. Raises FileError."""
        name = self.in_diffusers(layer)
        if match := re.fullmatch(r"(\w*?blocks)\.(\d+)\.(.+)", name):
            kind = next(one for one in self.blocks if one.ours == match[1])
            tails, head, tail = kind.tails, f"{kind.theirs}.{match[2]}.", match[3]
        else:
            tails, head, tail = self.singles, "", name
        found = next((head + theirs for theirs, ours in tails.items() if ours == tail), None)
        if found is None:
            raise FileError(f"layer {layer} has no name but diffusers': choose that spelling")
        return found

    def whole(self, layers: Mapping[ModuleKey, Delta]) -> dict[str, Delta]:
        """Layers and biases, some of them in slices, by the first authors' names. Raises FileError."""
        parts: dict[str, list[tuple[ModuleKey, Delta]]] = {}
        for key, delta in layers.items():
            parts.setdefault(str(key.name), []).append((key, delta))
        found: dict[str, Delta] = {}
        for name, held in parts.items():
            layer = name.removesuffix(BIAS)
            first, joined = self.first(layer), _joined(name, held, self.slice_count(layer))
            slot = self.slot_of(flat(first))
            turned = slot is not None and slot.is_swapped(joined.shape if joined.has_input_side else joined.shape[:1])
            found[first + BIAS * (name != layer)] = swapped(joined) if turned else joined
        return found

    def pieces(self, key: ModuleKey, delta: Delta) -> Iterator[tuple[str, Delta]]:
        """A layer, or some of its rows, by diffusers' names, which has fused layers in slices. Raises FileError."""
        first, behind = key.rows or (0, delta.shape[0])
        name = self.in_diffusers(str(key.name))
        fused = next((one for one in self._fused if name.endswith(one)), None)
        if fused is None:
            yield f"transformer.{name}", delta
            return
        end, width = first, delta.shape[1]
        for number, piece in enumerate(self._fused[fused]):
            start, stop = number * width, behind if number == MLP else (number + 1) * width
            if first <= start < stop <= behind:
                yield f"transformer.{name.removesuffix(fused)}{piece}", delta.rows(start - first, stop - first)
                end = stop
        if end != behind:
            raise FileError(
                f"rows {first} to {behind} of layer {key.name} are no whole slices of q, k, v and mlp: use other LoRAs"
            )


def family(
    label: str,
    metadata: Mapping[str, str],
    names: Names,
    own: str,
    hidden: tuple[int, ...],
    blocks: tuple[Block, ...],
    bare: tuple[str, ...],
    excluded: Callable[[Evidence], bool] = lambda evidence: False,
    shows: Callable[[Evidence], bool] = lambda evidence: True,
    readers: Mapping[Spelling, str] | None = None,
) -> Family:
    """A family whose diffusion model is such a transformer.

    own
        Pattern of names of modules that files of this family have, and of those that have taken them over.
    hidden
        Possible widths of the hidden states.
    bare
        How the first authors' names start that have no prefix.
    excluded
        Whether a file cannot be of this family, whatever its names.
    shows
        Whether a file shows what tells this family from those that have taken over its names.
    readers
        See Family.
    """

    def has(layer: str) -> bool:
        rest = layer.removeprefix(PREFIX).removesuffix(BIAS)
        return layer.startswith(text_encoders.T5) or (layer.startswith(PREFIX) and names.slot_of(rest) is not None)

    def claims(evidence: Evidence) -> float:
        if not any(map(has, evidence.widths)) or excluded(evidence):
            return 0
        inner = {width for name, width in evidence.widths.items() if names.slice_count(name)}
        is_named = re.search(own, evidence.text) is not None
        if not is_named and not (inner and inner <= set(hidden)):
            return 0
        return (2 if is_named else 1) if shows(evidence) else OFTEN

    return Family(
        label,
        metadata,
        blocks,
        bare=(*BARE, *bare),
        slot_of=names.slot_of,
        claims=claims,
        has=has,
        entries={
            "diffusers": partial(_in_diffusers, names),
            "comfyui": lambda layers: entries(layers, names.whole, "diffusion_model.", str),
            "kohya": lambda layers: entries(layers, names.whole, PREFIX, flat),
        },
        slice_count=names.slice_count,
        readers=readers or {},
    )


def _in_diffusers(names: Names, layers: Mapping[ModuleKey, Delta]) -> dict[str, Delta]:
    """The names of diffusers, with q, k and v one by one, but for two things that hosts read by other names only.

    Those are biases, whole layers by the names of the model's first authors, and a T5, which is kohya's.
    """
    found: dict[str, Delta] = {}
    biases: dict[ModuleKey, Delta] = {}
    for key, delta in layers.items():
        name = str(key.name)
        if name.endswith(BIAS) and key.part == "unet":
            biases[key] = delta
        elif key.part == "te":
            found[text_encoders.in_diffusers(name)] = delta
        else:
            found.update(names.pieces(key, delta))
    return found | entries(biases, names.whole, "diffusion_model.", str)


def _joined(name: str, parts: list[tuple[ModuleKey, Delta]], count: int) -> Delta:
    """One layer or bias of its slices; of a layer, nothing changes in the rows of those that are not there."""
    if parts[0][0].rows is None:
        return parts[0][1]
    rows = sorted(key.rows or (0, 0) for key, _ in parts)
    widths = count if count <= MLP else MLP + MLP_RATIO
    if name.endswith(BIAS):
        height = min(stop - start for start, stop in rows) * widths
        if [start for start, _ in rows] + [height] != [0] + [stop for _, stop in rows]:
            raise FileError(f"{name} is changed in some of its slices only, which no host can read: leave biases out")
    else:
        height = parts[0][1].shape[1] * widths
    return total([placed(delta, (key.rows or (0, 0))[0], height) for key, delta in parts])


def _whole(table: Mapping[str, str]) -> dict[str, tuple[str, Slices | None]]:
    return {flat(name): (flat(ours), None) for name, ours in table.items()}


def _slices(table: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, Slices | None]]:
    return {
        flat(name): (flat(fused), (number, number + 1))
        for fused, names in table.items()
        for number, name in enumerate(names)
    }
