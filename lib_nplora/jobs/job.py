"""One fusion, wherever its LoRAs come from and wherever it goes: what is checked, what is made, what is remarked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import MismatchError, Remedy, Surface, sentence
from ..files import header_name, two_models
from ..fusion.fused import FusedLora
from ..fusion.outcome import Outcome, Summary
from ..fusion.walk import DtypeOf, FusedLayer, check_observed, fingerprint, fuse, fuse_layers, in_float32, layers
from ..layers.block import Block
from ..layers.by_block import check_blocks
from ..layers.key import ModuleKey
from ..layers.weights import LoraWeights
from ..maths.cache import ByteLru
from ..methods.method import Effect
from ..methods.moments import Observations
from ..methods.selection import Schedule
from ..request.request import FusionRequest, Source
from .traits import accelerator

NO_ACCELERATOR = Remedy("leave it out", "leave it out", "use an ordinary <lora:...> tag for it")
"""What to do with an accelerator LoRA, which is not to be fused."""

PLAIN_MERGE = "The two LoRAs share no layer that can be fused, so this is a plain merge."
"""Said beside the remarks if the job merges plainly."""

Progress = Callable[[int, int], None]
"""(layers done, layers in all), called as the work goes on. May raise to stop it."""


def unwatched(done: int, total: int) -> None:
    """The Progress that nobody looks at."""


@dataclass(frozen=True)
class Remark:
    """Something about a fusion that the user might not expect.

    remedy
        What can be done about it, if that depends on the surface.
    """

    text: str
    remedy: Remedy | None = None

    def __str__(self) -> str:
        return self.told("command line")

    def told(self, surface: Surface) -> str:
        return sentence(self.text, self.remedy, surface)


@dataclass(frozen=True, eq=False)
class LoadedLora:
    """A LoRA that was read.

    name
        What the user knows it by.
    file
        The name of its file.
    metadata
        What the file's header says about it.
    family
        The model family that its layers tell of, None if they tell nothing here.
    remarks
        What the user might not expect of its file.
    """

    weights: LoraWeights
    name: str
    file: str
    metadata: Mapping[str, object] = field(default_factory=dict)
    family: str | None = None
    remarks: Sequence[Remark] = ()


@dataclass(frozen=True, eq=False)
class Job:
    """A request and its LoRAs.

    contents, styles
        In the order of request.contents and request.styles.
    blocks
        Those of the model; empty if it is not known.
    observe
        Looks at the model at work, for methods that need it; None where it cannot be.
    """

    request: FusionRequest
    contents: Sequence[LoadedLora]
    styles: Sequence[LoadedLora]
    blocks: Collection[Block] = ()
    observe: Callable[[], Observations] | None = None

    def check(self) -> None:
        """Look for all that can be told before anything is fused.

        Raises MismatchError if the LoRAs make no pair, RequestError for strengths of blocks that the model lacks and
        for a method that would have to look at the model.
        """
        check_observed(self.request, self.observe)
        check_blocks(self.request.blocks, self.blocks)
        for content, style in itertools.product(self.contents, self.styles):
            if content.weights.is_same(style.weights):
                names = " and ".join(f"'{name}'" for name in dict.fromkeys((content.name, style.name)))
                raise MismatchError(
                    f"{names} would be content and style at once (both are the same LoRA): choose two different ones"
                )
            if content.family and style.family and content.family != style.family:
                raise two_models((content.name, style.name), (content.family, style.family))

    @property
    def fingerprint(self) -> str:
        """A hash of everything that changes the fused deltas."""
        return fingerprint(self.request, *self._sides)

    def walk(
        self,
        derived: ByteLru,
        inspected: bool = False,
        progress: Progress = unwatched,
        skipped: Collection[ModuleKey] = (),
    ) -> Iterator[FusedLayer]:
        """The fused layers and slices of layers, one by one. Raises what `fuse_layers` and `progress` raise.

        derived
            Keeps decompositions and importances.
        inspected
            Whether layers that both sides hold are measured.
        skipped
            Layers that are done already.
        """
        before, total = len(skipped), len(layers(*self._sides))
        progress(before, total)
        fused = fuse_layers(self.request, *self._sides, derived, inspected, skipped=skipped)
        for done, (_, pieces) in enumerate(itertools.groupby(fused, lambda piece: piece.key.layer), before + 1):
            yield from pieces
            progress(done, total)

    def fuse(self, derived: ByteLru, dtype: DtypeOf = in_float32) -> FusedLora:
        """All that the walk gives, held together. Raises what `fuse_layers` and `observe` raise."""
        seen = self.observe() if self.observe and self.request.method.observes else None
        return fuse(self.request, *self._sides, derived, seen, dtype)

    def summary(self, fused: Sequence[FusedLayer]) -> Summary:
        """What happened to the layers of a walk."""
        unmatched = sum(len(lora.weights.unmatched) for lora in self._loras)
        return Summary({layer.key: layer.report for layer in fused}, unmatched)

    def schedule(self, fused: Sequence[FusedLayer]) -> Schedule | None:
        """Who wins the contested layers of a walk when; None if there are none. Raises RequestError."""
        contests = {layer.key: layer.contest for layer in fused if layer.contest}
        return self.request.method.schedule(self.request.values, contests)

    def remarks(self, summary: Summary, schedule: Schedule | None, removal_told: bool = False) -> list[Remark]:
        """What the user might not expect of these LoRAs, of this request, and of what came of them.

        removal_told
            Whether the user is told anyway how much was removed.

        That nothing could be fused is not among them: see merges_plainly.
        """
        return list(
            dict.fromkeys(
                (
                    *self._accelerators(),
                    *self._made_for_others(),
                    *(remark for lora in self._loras for remark in lora.remarks),
                    *self._without_effect(summary),
                    *self._left_out(summary),
                    *map(Remark, self.request.remarks),
                    *map(Remark, self._remarks_of_method(summary, schedule, removal_told)),
                )
            )
        )

    def merges_plainly(self, summary: Summary) -> bool:
        """Whether the LoRAs are added up for want of anything to fuse: not if there is some that was not asked for."""
        contents, styles = ({key.layer for lora in side for key in lora.deltas} for side in self._sides)
        left_out = {key.layer for key, layer in summary.layers.items() if layer.outcome is Outcome.LEFT_OUT}
        return not (summary.any_fused or self.request.method.takes_lone_layers or left_out & contents & styles)

    @property
    def _loras(self) -> Sequence[LoadedLora]:
        return (*self.contents, *self.styles)

    @property
    def _sides(self) -> tuple[Sequence[LoraWeights], Sequence[LoraWeights]]:
        return [lora.weights for lora in self.contents], [lora.weights for lora in self.styles]

    def _accelerators(self) -> Iterator[Remark]:
        for role, side in (("content", self.contents), ("style", self.styles)):
            for lora in side:
                if kind := accelerator(lora.name) or accelerator(lora.file):
                    yield Remark(
                        f"'{lora.name}' looks like an accelerator LoRA ({kind}), which is no {role}", NO_ACCELERATOR
                    )

    def _made_for_others(self) -> Iterator[Remark]:
        """Headers that name more than one model."""
        families = {label: lora.name for lora in self._loras if (label := header_name(lora.metadata))}
        if len(families) > 1:
            made = ", ".join(f"'{name}': {label}" for label, name in families.items())
            yield Remark(f"these LoRAs are made for different models ({made}): the result may be noise")

    def _without_effect(self, summary: Summary) -> Iterator[Remark]:
        for role, sources, side, energy in (
            ("content", self.request.contents, self.contents, summary.content_energy),
            ("style", self.request.styles, self.styles, summary.style_energy),
        ):
            if energy == 0 and any(self._weighs(source, lora) for source, lora in zip(sources, side)):
                yield Remark(f"the {role} changes nothing: its alpha is 0, or all its values are")

    def _weighs(self, source: Source, lora: LoadedLora) -> bool:
        """Whether the request asks for any of the LoRA's layers."""
        return any(source.weight(key) * getattr(self.request, key.part) for key in lora.weights.deltas)

    def _remarks_of_method(self, summary: Summary, schedule: Schedule | None, removal_told: bool) -> Sequence[str]:
        meets = any(
            key.part == "unet" and layer.content_energy and layer.style_energy for key, layer in summary.layers.items()
        )
        removed = None if removal_told else summary.removed
        effect = Effect(removed, summary.protected, meets, takes_turns=schedule is not None)
        return self.request.method.remarks(self.request.values, effect)

    def _left_out(self, summary: Summary) -> Iterator[Remark]:
        if not summary.as_asked and (summary.any_fused or summary.not_matched):
            yield Remark(f"not everything could be fused: {summary}")
            for lora in self._loras:
                if unmatched := len(lora.weights.unmatched):
                    yield Remark(f"{unmatched} of the modules in '{lora.name}' fit no layer of this model")
