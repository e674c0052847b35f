"""Two LoRA files in: their fusion as a third, or a report on it alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import RequestError
from ..files import LoraFile, Loss, ReadPair, Sizing, Spelling, lost, read_pair, to_write, write_lora
from ..fusion.interference import Interference
from ..fusion.outcome import Summary
from ..fusion.walk import FusedLayer
from ..layers.block import Block
from ..layers.key import ModuleKey
from ..maths.cache import ByteLru
from ..maths.delta import Delta
from ..maths.rank_rule import RankRule
from ..methods.selection import Schedule
from ..request.request import FusionRequest
from .file_remarks import of_header, of_scale, of_spelling
from .job import Job, LoadedLora, Progress, Remark, unwatched
from .new_file import check_new
from .provenance import Origin, provenance

NOTHING_MEETS = "Nothing of the two meets in this fusion: the layers that both have are at weight 0, or there are none."
"""Said of a pair without a layer to measure that is no plain merge either."""


@dataclass(frozen=True)
class FilePair:
    """Two files to fuse, and how.

    request
        Names one content and one style, by whatever names.
    base
        The model's file, for the kinds of module that need its weights.
    remarks
        What is to be said of how they were found.
    """

    content: Path
    style: Path
    request: FusionRequest
    base: Path | None = None
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True)
class Saving:
    """How a fusion is saved.

    dtype
        A name from DTYPES.
    size
        The highest rank of a layer, or the share of its energy that is kept; None for all of it.
    full
        Whether a layer that has no small rank may be stored whole.
    overwrite
        Whether `output` may exist.
    spelling
        How layers are named; None for the usual way of the model.
    """

    output: Path
    dtype: str = "fp16"
    size: RankRule | None = None
    full: bool = False
    overwrite: bool = False
    spelling: Spelling | None = None


@dataclass(frozen=True, eq=False)
class FileFusion:
    """What came of a pair that was fused or inspected.

    remarks
        What the user might not expect of it.
    merges_plainly
        Whether the two are added up for want of anything to fuse: PLAIN_MERGE says so.
    sizing
        How large layers might be.
    losses
        What layers lost whose rank was lowered.
    schedule
        Who wins which layer when, for a method that changes with the steps.
    interference
        How much the two meet in each layer that both hold, if the files were inspected. None for norms and biases.
    """

    summary: Summary
    remarks: tuple[Remark, ...]
    merges_plainly: bool = False
    sizing: Sizing = field(default_factory=Sizing)
    losses: Mapping[ModuleKey, Loss] = field(default_factory=dict)
    schedule: Schedule | None = None
    interference: Mapping[ModuleKey, Interference] = field(default_factory=dict)


def fuse_files(
    pair: FilePair,
    saving: Saving,
    progress: Progress = unwatched,
    still_free: Callable[[], object] | None = None,
) -> FileFusion:
    """Write the fusion. The file appears once it is complete, or not at all.

    still_free
        Asked right before the file is put in its place. May raise to have nothing written.

    Raises FileError, MismatchError, RequestError, and whatever `progress` and `still_free` raise.
    """
    check_new(saving.output, ".safetensors", saving.overwrite, (pair.content, pair.style, pair.base))
    if pair.request.method.changes_with_steps:
        raise RequestError(
            f"method={pair.request.method.name} changes from step to step, which no file can hold: use the tag in a "
            "prompt, or choose another method"
        )
    read = _Read.of(pair, saving.spelling)
    family, file_names = read.files.family, read.files.file_names
    sizing = Sizing(saving.size, saving.full)
    fused: list[FusedLayer] = []
    deltas: list[tuple[ModuleKey, Delta]] = []
    losses: dict[ModuleKey, Loss] = {}
    for layer in read.walk(progress):
        fused.append(replace(layer, delta=None))
        if layer.delta is not None:
            delta, loss = sizing.fit(layer.key, layer.delta)
            deltas.append((layer.key, delta))
            if loss:
                losses[layer.key] = loss
    if not deltas:
        raise RequestError("nothing is left to write: the weights are 0 in every layer. Choose a weight other than 0")
    write_lora(
        saving.output,
        _handed_over(deltas),
        saving.dtype,
        family,
        read.provenance(sizing),
        saving.spelling,
        still_free,
        file_names,
        read.files.kept,
    )
    summary = read.job.summary(fused)
    remarks = [*pair.remarks, *read.job.remarks(summary, None, removal_told=True)]
    if file_names is None:
        family = to_write([str(key.name) for key in summary.layers], family)
    if family:
        remarks += of_spelling(family, file_names.spelling if file_names else saving.spelling)
    return FileFusion(summary, tuple(remarks), read.job.merges_plainly(summary), sizing, losses)


def inspect_files(
    pair: FilePair, progress: Progress = unwatched, measured: list[FusedLayer] | None = None
) -> FileFusion:
    """Say what the fusion would be, layer by layer.

    measured
        What an inspection of the same pair had measured when it was stopped. Grows as this one goes on, so that it may
        be stopped and taken up in turn.

    Raises FileError, MismatchError, RequestError, and whatever `progress` raises.
    """
    read = _Read.of(pair)
    fused = [] if measured is None else measured
    for layer in read.walk(progress, inspected=True, skipped={layer.key.layer for layer in fused}):
        fused.append(replace(layer, delta=None, rival=None))
    summary, schedule = read.job.summary(fused), read.job.schedule(fused)
    return FileFusion(
        summary,
        (*pair.remarks, *read.job.remarks(summary, schedule, removal_told=True)),
        read.job.merges_plainly(summary),
        schedule=schedule,
        interference={layer.key: layer.interference for layer in fused if layer.interference},
    )


def losses_told(fusion: FileFusion) -> str:
    """What was lost where ranks were lowered."""
    size, losses = fusion.sizing.size, fusion.losses
    kept = f"{size} of their energy" if size and size.percent else f"rank {size}"
    return f"{len(losses)} layers cut to {kept}: {100 * lost(losses.values()):.2f} % of their energy lost"


def _handed_over(deltas: list[tuple[ModuleKey, Delta]]) -> Iterator[tuple[ModuleKey, Delta]]:
    """Each delta, taken off the list, so that the writer can let go of each one that it has converted."""
    deltas.reverse()
    while deltas:
        yield deltas.pop()


@dataclass(frozen=True, eq=False)
class _Read:
    """A pair whose files are open, and fit each other as far as their headers tell."""

    job: Job
    files: ReadPair

    @classmethod
    def of(cls, pair: FilePair, spelling: Spelling | None = None) -> _Read:
        """Open the files of a pair. Raises FileError, MismatchError, RequestError."""
        pair.request.check()
        files = read_pair(pair.content, pair.style, pair.base, spelling)
        job = Job(pair.request, [_loaded(files.content, files.doubt)], [_loaded(files.style)], _blocks(files))
        job.check()
        return cls(job, files)

    def walk(
        self, progress: Progress, inspected: bool = False, skipped: Collection[ModuleKey] = ()
    ) -> Iterator[FusedLayer]:
        """The fused layers one by one. What one is decomposed into is not kept for the next."""
        derived = ByteLru(0)
        for layer in self.job.walk(derived, inspected, progress, skipped):
            yield layer
            derived.begin_round()

    def provenance(self, sizing: Sizing) -> dict[str, str]:
        """What the file says about how it was made."""
        request, files = self.job.request, self.files
        base, both = files.base, (files.content, files.style)
        model = {}
        if base and any(lora.weights.digest != lora.sha256 for lora in both):
            model = {"nplora_base": json.dumps({"name": Path(base.name).stem, "sha256": base.digest})}
        content, style = (Origin(lora.weights.name, lora.sha256, _told(lora)) for lora in both)
        return {
            **provenance(request, content, style, files.family),
            "nplora_method": request.method.name,
            **{f"nplora_{one.name}": request.values.text(one) for one in request.method.parameters},
            **({f"nplora_{'energy' if sizing.size.percent else 'rank'}": str(sizing.size)} if sizing.size else {}),
            **model,
        }


def _blocks(files: ReadPair) -> Collection[Block]:
    """Those of the model, and those that the files' own names tell of; empty if nothing is known of it."""
    known = files.family.blocks if files.family else ()
    if files.file_names is None:
        return known
    return {*known, *(key.place.block for lora in (files.content, files.style) for key in lora.weights.deltas)}


def _loaded(lora: LoraFile, doubt: str | None = None) -> LoadedLora:
    family = lora.family.label if lora.family else None
    remarks = (*of_header(lora), *of_scale(lora), *map(Remark, [doubt] if doubt else ()))
    return LoadedLora(lora.weights, lora.path.name, lora.path.name, lora.metadata, family, remarks)


def _told(lora: LoraFile) -> Mapping[str, str]:
    """The header, unless it names a model that the layers are not of."""
    return {} if any(of_header(lora)) else lora.metadata
