"""LoRAs fused into a pipeline of diffusers, and taken out of it again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Union

from ..errors import RequestError
from ..files.tensor_file import TensorFile
from ..fusion.fused import FusedLora
from ..fusion.outcome import Summary
from ..fusion.walk import check_observed
from ..hosts.diffusers import PipelineModel
from ..hosts.protocol import ShelfFile
from ..jobs.job import PLAIN_MERGE, Job, LoadedLora
from ..maths.cache import ByteLru
from ..methods.moments import Observations
from ..methods.table import every_parameter, third
from ..methods.texts import format_number, parse_number
from ..request.request import FusionRequest, Source
from ..request.tag import METHOD, read_shared, read_weight, refuse_unknown, shared_keys, weighted
from . import steps
from .observing import Looks, observe

logger = logging.getLogger("nplora")

CACHE = 2 * 2**30
"""Bytes of decompositions that a pair keeps for its next fusion."""

_SAY_LOOKS = (
    "each side alone: say what it is to draw, looks=Looks(content='a photo of sks dog', style='a house in vangogh "
    "style')"
)
"""What lets a method look at a pipeline."""

LoraPath = Union[str, "PathLike[str]"]
Value = Union[str, float, "PathLike[str]"]
"""A number, a text as in the tag, such as `0.5,mid@2`, or a file."""


def fuse_into(
    pipe: Any,
    content: LoraPath | Sequence[LoraPath],
    style: LoraPath | Sequence[LoraPath],
    mu: Value | None = None,
    method: str | None = None,
    looks: Looks | None = None,
    **values: Any,
) -> Fusion:
    """Fuse LoRA files into a pipeline of diffusers, in place of any fusion that stands there. See Pair and Pair.fuse.

    with fuse_into(pipe, "dog.safetensors", "vangogh.safetensors", mu=0.5):
        picture = pipe("a photo of my dog").images[0]
    """
    return Pair(pipe, content, style, looks).fuse(mu, method, **values)


class Fusion:
    """A fusion that stands in a pipeline. At the end of a `with` it is undone.

    summary
        What happened to the layers.
    remarks
        What the user might not expect of it.
    """

    def __init__(self, pipe: Any, model: PipelineModel, fused: FusedLora, remarks: Sequence[str]) -> None:
        self.summary: Summary = fused.summary
        self.remarks = tuple(remarks)
        self._pipe, self._model, self._fused = pipe, model, fused

    def undo(self) -> None:
        """Bring back the pipeline's own weights, to the bit; nothing if another fusion took the place of this one.

        Raises HostError if they are out of reach, or if LoRAs were merged into them since.
        """
        if self._model.holds(self._fused):
            self._model.clear()
            steps.unwatch(self._pipe)

    def __enter__(self) -> Fusion:
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"<{self._fused.title}: {self.summary}>"


class Pair:
    """A content and a style for a pipeline, read and decomposed once, however often they are fused.

    content, style
        LoRA files, .safetensors in any spelling that we read; or several of them.
    looks
        What the pipeline is to draw for methods that look at it, which it is when the first of them is asked for.
    """

    def __init__(
        self,
        pipe: Any,
        content: LoraPath | Sequence[LoraPath],
        style: LoraPath | Sequence[LoraPath],
        looks: Looks | None = None,
    ) -> None:
        """Raises FileError, MismatchError if a file is for another model, HostError for layers that cannot change.

        RequestError if there is none of a role.
        """
        self._pipe = pipe
        self._model = PipelineModel(pipe)
        self._looks = looks
        self._contents, self._styles = (
            [loaded(self._model, path) for path in _several(role, side)]
            for role, side in (("content", content), ("style", style))
        )
        self._derived = ByteLru(CACHE, strict=True)

    def fuse(
        self,
        mu: Value | None = None,
        method: str | None = None,
        *,
        c: Value | Sequence[Value] = 1.0,
        s: Value | Sequence[Value] = 1.0,
        te: Value = 1.0,
        unet: Value = 1.0,
        **values: Value | None,
    ) -> Fusion:
        """Make them part of the pipeline, in place of any other fusion.

        mu
            How strongly the style is protected: a number from 0 up, or `hard`.
        method
            From the table of methods; `np` unless given.
        c, s
            Weights of content and style; a sequence if there are several.
        te, unet
            Multipliers of the whole on the text encoders and on the UNet or transformer.
        values
            What else the method reads, by name: k="90%", alpha=1.5, hypernet="hypernet.pth", ...

        Numbers may be texts as in the tag, with strengths by block: mu="0.5,mid@2". Remarks are logged, too.
        Raises RequestError for what cannot be read, MismatchError for LoRAs that make no pair, HostError for what this
        pipeline cannot do; then nothing of this fusion stands.
        """
        named = {
            name: _text(value)
            for name, value in {third().name: mu, METHOD: method, **values}.items()
            if value is not None
        }
        refuse_unknown(named, (*shared_keys(), *every_parameter()))
        request = FusionRequest.of(
            _weighted("c", self._contents, c),
            _weighted("s", self._styles, s),
            te=parse_number("te", _text(te)),
            unet=parse_number("unet", _text(unet)),
            **read_shared(named),
        )
        fusion = self.fused(request)
        for remark in fusion.remarks:
            logger.warning("%s: %s", request.title, remark)
        return fusion

    def fused(self, request: FusionRequest) -> Fusion:
        """What a request asks for, made part of the pipeline. See `fuse`."""
        job = self.checked(request)
        self._derived.begin_round()
        fused = job.fuse(self._derived)
        self._model.apply([fused])
        if fused.schedule:
            steps.watch(self._pipe, partial(_turn, self._model, fused))
        else:
            steps.unwatch(self._pipe)
        remarks = [remark.told("API") for remark in job.remarks(fused.summary, fused.schedule)]
        return Fusion(self._pipe, self._model, fused, remarks + [PLAIN_MERGE] * job.merges_plainly(fused.summary))

    def checked(self, request: FusionRequest) -> Job:
        """The job that a request is, as far as that can be told before anything is fused. Raises as `fuse` does."""
        request.check()
        steps.check(self._pipe, request.method)
        check_observed(request, self._looks, _SAY_LOOKS)
        job = Job(request, self._contents, self._styles, self._model.blocks(), self._observed)
        job.check()
        return job

    def _observed(self) -> Observations:
        """Made once, and again if PEFT has changed the pipeline since: all else is the same for all that a pair is."""
        assert self._looks is not None
        contents, styles = ([lora.weights for lora in side] for side in (self._contents, self._styles))
        steps.unwatch(self._pipe)
        return self._derived.get(
            ("observations", self._model.adapters()),
            partial(observe, self._pipe, self._model, contents, styles, self._looks),
        )


def on_disk(path: LoraPath) -> ShelfFile:
    """A LoRA file by its path. Raises FileError if it cannot be opened."""
    path = Path(path).expanduser()
    return ShelfFile(path.name, str(path), str(path), metadata=TensorFile(path).metadata)


def loaded(model: PipelineModel, path: LoraPath) -> LoadedLora:
    """A LoRA file, read for a pipeline. Raises FileError, MismatchError if it is for another model, HostError."""
    file = on_disk(path)
    weights = model.load(file)
    return LoadedLora(weights, file.name, file.name, file.metadata)


def _turn(model: PipelineModel, fused: FusedLora, step: int, count: int) -> None:
    """Give each layer to its winner of this step."""
    if fused.schedule:
        model.swap(fused, fused.schedule.winners(step, count))


def _several(role: str, paths: LoraPath | Sequence[LoraPath]) -> Sequence[LoraPath]:
    """Raises RequestError if there is none."""
    several = [paths] if isinstance(paths, (str, PathLike)) else paths
    if not several:
        raise RequestError(f"there is no {role}: name at least one LoRA file")
    return several


def _text(value: Value) -> str:
    """As in a tag."""
    return str(value) if isinstance(value, (str, PathLike)) else format_number(value)


def _weighted(key: str, loras: Sequence[LoadedLora], weights: Value | Sequence[Value]) -> tuple[Source, ...]:
    """The sources of a request. Raises RequestError."""
    if isinstance(weights, str) or not isinstance(weights, Sequence):
        weights = [weights] * len(loras)
    if len(weights) != len(loras):
        raise RequestError(f"{key} has {len(weights)} weights for {len(loras)} LoRAs: give one, or one for each")
    return tuple(weighted(Path(lora.name).stem, read_weight(key, _text(one))) for lora, one in zip(loras, weights))
