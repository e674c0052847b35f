"""Two LoRA files in: their fusion as a third, or a report on it alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import __version__
from ..errors import FileError, MismatchError, Remedy, RequestError
from ..files import Base, LoraFile, Sizing, Spelling, is_transformer, read_lora, write_lora
from ..fusion.interference import Interference
from ..fusion.outcome import Summary
from ..fusion.walk import FusedLayer, fuse_layers, schedule_of, settings_of, unread
from ..layers.key import ModuleKey
from ..layers.weights import LoraWeights
from ..maths.cache import ByteLru
from ..maths.rank_rule import RankRule
from ..methods.selection import Schedule
from ..methods.table import OPTIONS, method_named
from ..request.request import FusionRequest, Source, format_number
from .traits import accelerator

PLAIN_MERGE = "The two LoRAs share no layer that can be fused, so this is a plain merge."
"""To be said unless `summary.any_fused`."""

ONLY_DIFFUSERS = "WebUIs do not know all layers of a UNet by diffusers' names: for <lora:...>, choose kohya's"

Watch = Callable[[LoraWeights, LoraWeights, Iterator[FusedLayer]], Iterator[FusedLayer]]
"""(content, style, layers) -> the same layers, one by one, while somebody looks on."""


def unwatched(content: LoraWeights, style: LoraWeights, walk: Iterator[FusedLayer]) -> Iterator[FusedLayer]:
    """See Watch."""
    return walk


@dataclass(frozen=True)
class FilePair:
    """What to fuse.

    request
        Of one content and one style, by whatever names.
    base
        The model's file, for the kinds of module that need its weights.
    """

    content: Path
    style: Path
    request: FusionRequest
    base: Path | None = None


@dataclass(frozen=True)
class Saving:
    """How to save it.

    dtype
        A name from DTYPES.
    size
        The highest rank of a layer, or the share of its energy that is kept; None for all of it.
    full
        Whether a layer that has no small rank may be stored whole.
    overwrite
        Whether `output` may exist.
    spelled
        How layers are named; None for the usual way of the model.
    """

    output: Path
    dtype: str = "fp16"
    size: RankRule | None = None
    full: bool = False
    overwrite: bool = False
    spelled: Spelling | None = None


@dataclass(frozen=True, eq=False)
class FileFusion:
    """What came of it.

    remarks
        On files that are a strange choice, and on settings that have no effect.
    sizing
        With the layers whose rank was lowered.
    schedule
        Who wins which layer when, for a method that changes with the steps.
    interference
        How much the two meet in each layer that both hold, if the files were inspected. None for norms and biases.
    """

    summary: Summary
    remarks: tuple[str, ...]
    sizing: Sizing = field(default_factory=Sizing)
    schedule: Schedule | None = None
    interference: Mapping[ModuleKey, Interference] = field(default_factory=dict)


def fuse_files(pair: FilePair, saving: Saving, watch: Watch = unwatched) -> FileFusion:
    """Write the fusion. The file appears once it is complete, or not at all.

    Raises FileError, MismatchError, RequestError, and whatever `watch` raises.
    """
    check_new(saving.output, ".safetensors", saving.overwrite, (pair.content, pair.style, pair.base))
    if method_named(pair.request.method).rule:
        raise RequestError(
            f"method={pair.request.method} changes from step to step, which no file can hold: use the tag in a prompt, "
            "or choose another method"
        )
    read = _Read.of(pair)
    seen: list[FusedLayer] = []
    sizing = Sizing(saving.size, saving.full)
    write_lora(
        saving.output,
        (
            (layer.key, sizing.fit(layer.key, layer.delta))
            for layer in read.walk(seen, watch)
            if layer.delta is not None
        ),
        saving.dtype,
        read.content.family or read.style.family,
        read.provenance(sizing),
        saving.spelled,
    )
    remarks = read.remarks
    if saving.spelled == "diffusers" and not any(is_transformer(str(layer.key.name)) for layer in seen):
        remarks += (ONLY_DIFFUSERS,)
    return FileFusion(read.summary(seen), remarks, sizing)


def inspect_files(pair: FilePair, watch: Watch = unwatched) -> FileFusion:
    """Say what the fusion would be, layer by layer. Raises FileError, MismatchError, RequestError, and as `watch`."""
    read = _Read.of(pair)
    seen: list[FusedLayer] = []
    for _ in read.walk(seen, watch, inspected=True):
        pass
    contests = {layer.key: layer.contest for layer in seen if layer.contest}
    return FileFusion(
        read.summary(seen),
        read.remarks,
        schedule=schedule_of(pair.request, contests),
        interference={layer.key: layer.interference for layer in seen if layer.interference},
    )


def losses(sizing: Sizing) -> str:
    """What was lost where ranks were lowered."""
    size = sizing.size
    kept = f"{size} of their energy" if size and size.percent else f"rank {size}"
    return f"{len(sizing.losses)} layers cut to {kept}: {100 * sizing.lost:.2f} % of their energy lost"


@dataclass(frozen=True, eq=False)
class _Read:
    """A pair whose files are open, and fit each other as far as their headers tell."""

    request: FusionRequest
    content: LoraFile
    style: LoraFile
    base: Base | None

    @classmethod
    def of(cls, pair: FilePair) -> _Read:
        """Raises FileError, MismatchError."""
        base = Base(pair.base) if pair.base else None
        read = cls(pair.request, read_lora(pair.content, base), read_lora(pair.style, base), base)
        _check_pair(read.content, read.style)
        return read

    def walk(self, seen: list[FusedLayer], watch: Watch, inspected: bool = False) -> Iterator[FusedLayer]:
        """The fused layers one by one. Fills `seen` with them, less their deltas, which are not kept."""

        def walk() -> Iterator[FusedLayer]:
            bases = ByteLru(0)
            for layer in fuse_layers(self.request, [self.content.weights], [self.style.weights], bases, inspected):
                seen.append(replace(layer, delta=None, rival=None))
                yield layer
                bases.begin_round()

        return watch(self.content.weights, self.style.weights, walk())

    def summary(self, seen: Sequence[FusedLayer]) -> Summary:
        reports = {layer.key: layer.report for layer in seen}
        return Summary(reports, len(self.content.weights.unmatched) + len(self.style.weights.unmatched))

    @property
    def remarks(self) -> tuple[str, ...]:
        accelerators = (
            f"'{lora.path.name}' looks like an accelerator LoRA ({kind}), which is no {role}: leave it out"
            for role, lora in (("content", self.content), ("style", self.style))
            if (kind := accelerator(lora.weights.name))
        )
        return *accelerators, *unread(self.request)

    def provenance(self, sizing: Sizing) -> dict[str, str]:
        """What the file says about how it was made."""
        request, base = self.request, self.base
        reads = method_named(request.method).reads

        def described(lora: LoraFile, source: Source) -> str:
            te, unet = source.te * request.te, source.unet * request.unet
            return json.dumps([{"name": lora.weights.name, "sha256": lora.sha256, "te": te, "unet": unet}])

        used = base and any(lora.weights.digest != lora.sha256 for lora in (self.content, self.style))
        model = {"nplora_base": json.dumps({"name": base.path.stem, "sha256": base.digest})} if base and used else {}
        return {
            "nplora_version": __version__,
            "nplora_contents": described(self.content, request.contents[0]),
            "nplora_styles": described(self.style, request.styles[0]),
            "nplora_mu": format_number(request.mu),
            "nplora_k": str(request.k),
            "nplora_method": request.method,
            **{f"nplora_{name}": str(getattr(settings_of(request), name)) for name in OPTIONS if name in reads},
            **({f"nplora_{'energy' if sizing.size.percent else 'rank'}": str(sizing.size)} if sizing.size else {}),
            **model,
        }


def check_new(output: Path, ending: str, overwrite: bool, read: Iterable[Path | None] = ()) -> None:
    """Raises FileError unless `output`, which is to end so, can be written without harm to any file that is `read`."""
    if output.suffix != ending:
        raise FileError(f"the output '{output}' does not end in {ending}: choose such a name")
    if not output.parent.is_dir():
        raise FileError(f"the output folder '{output.parent}' does not exist: create it first")
    if output.is_dir():
        raise FileError(f"the output '{output}' is a folder: name a file in it")
    if not output.exists():
        return
    for path in filter(None, read):
        if path.exists() and output.samefile(path):
            raise FileError(f"the output '{output}' is one of the files to read: choose another name")
    if not overwrite:
        raise FileError(
            f"the output '{output}' exists",
            Remedy("choose another name, or add --overwrite", "choose another name"),
        )


def _check_pair(content: LoraFile, style: LoraFile) -> None:
    """Raises FileError or MismatchError if a fusion would make no sense."""
    if content.sha256 == style.sha256:
        raise FileError(f"'{content.path}' and '{style.path}' are the same LoRA: choose two different ones")
    if content.family and style.family and content.family != style.family:
        raise MismatchError(
            f"'{content.path.name}' is made for {content.family.label} and '{style.path.name}' for "
            f"{style.family.label}: choose two LoRAs for the same model"
        )
