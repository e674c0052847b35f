"""The only walk over layers: LoRAs in, their fusion out."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..errors import MismatchError, RequestError
from ..layers.key import ModuleKey
from ..layers.weights import LoraWeights
from ..maths.cache import ByteLru
from ..maths.delta import Delta, total
from ..maths.dense import DenseDelta
from ..maths.lowrank import exact_math
from ..methods.balance import CONTENT_ENERGY, STYLE_ENERGY, meeting
from ..methods.bases import CONTENT_INPUT, STYLE_INPUT
from ..methods.layer import AnyNeed, Layer, Share, Side, Sized
from ..methods.method import EQUAL, LeftOut, Sum, Turns, added_up
from ..methods.moments import Moments, Observations
from ..methods.parameter import Values
from ..methods.selection import Contest
from ..request.request import FusionRequest, Source
from .fused import FusedLora
from .interference import Interference, interference
from .outcome import LayerReport, Outcome, Summary

_ELSEWHERE = "which it can in a pipeline of diffusers alone (fuse_into, generate): choose another method"
"""What to do about a method that looks at the model where nothing lets it."""

DtypeOf = Callable[[ModuleKey], torch.dtype]
"""Layer -> the number format of its weight: see DenseDelta.stored."""


def in_float32(key: ModuleKey) -> torch.dtype:
    """The DtypeOf that keeps every digit."""
    return torch.float32


NO_INPUT_SIDE = "norms and biases have no input side"
"""Why layers that both LoRAs have are added as they are."""


@dataclass(frozen=True, eq=False)
class FusedLayer:
    """One step of the walk.

    delta
        The update of the layer; of one that takes turns, while the content wins; None if it is left out.
    rival
        The update while the style wins, if the layer takes turns.
    contest
        What both sides weigh there.
    interference
        How much both sides meet there, if it was asked for.
    """

    key: ModuleKey
    delta: Delta | None
    report: LayerReport
    rival: Delta | None = None
    contest: Contest | None = None
    interference: Interference | None = None

    def stored(self, dtype: DtypeOf) -> FusedLayer:
        """As it is kept for a weight of that number format, which is asked for where there are no factors."""
        delta, rival = (
            delta.stored(dtype(self.key)) if isinstance(delta, DenseDelta) else delta
            for delta in (self.delta, self.rival)
        )
        return replace(self, delta=delta, rival=rival)


def fingerprint(
    request: FusionRequest,
    contents: Sequence[LoraWeights],
    styles: Sequence[LoraWeights],
    observations: Observations | None = None,
) -> str:
    """A hash of everything that changes the fused deltas."""
    values = [request.values.text(parameter) for parameter in request.method.parameters]
    settings = [request.method.name, request.te, request.unet, *values]
    sides = [
        [(source.te, source.unet, source.exceptions, lora.digest) for source, lora in zip(sources, loras)]
        for sources, loras in ((request.contents, contents), (request.styles, styles))
    ]
    seen = (observations.digest,) if observations else ()
    return hashlib.sha256(repr((settings, sides, *seen)).encode()).hexdigest()[:16]


def layers(contents: Sequence[LoraWeights], styles: Sequence[LoraWeights]) -> list[ModuleKey]:
    """Every layer that any of the LoRAs holds, whole or in slices, once, contents first."""
    return list(_slices((*contents, *styles)))


def fuse_layers(
    request: FusionRequest,
    contents: Sequence[LoraWeights],
    styles: Sequence[LoraWeights],
    derived: ByteLru,
    inspected: bool = False,
    observations: Observations | None = None,
    skipped: Container[ModuleKey] = (),
) -> Iterator[FusedLayer]:
    """Fuse `contents` with `styles`, which stand in the order of request.contents and request.styles.

    A layer that has contents only or styles only is added as it is, unless the method says otherwise; one whose weights
    are all 0 is left out. One that some LoRAs hold whole and others in slices of rows is fused slice by slice: the
    slices share their input side, so each slice of a content is projected with the basis of the style's module that
    holds those rows, whole or slice.
    `derived` keeps what the method needs. Layers that both sides hold are measured if they are `inspected`.
    `observations` are for methods that look at the model at work. `skipped` layers are passed over.
    Each delta of each LoRA is asked for once, so that LoRAs read from disk layer by layer are held one at a time; twice
    if the method needs something of all layers.
    Raises MismatchError if a layer has another shape in one of the LoRAs, RequestError for values that do not go
    together, for LoRAs that the method can do nothing with, and for observations that are missing.
    """
    request.check()
    check_observed(request, observations)
    walk = _Walk(request, request.values, contents, styles, derived, inspected, observations)
    request.method.check_pair(walk.values, contents, styles)
    for layer, slices in _slices((*contents, *styles)).items():
        if layer in skipped:
            continue
        with exact_math():
            pieces = [walk.fuse(piece) for piece in walk.pieces(layer, slices)]
        yield from pieces


def check_observed(request: FusionRequest, observed: object, remedy: str = _ELSEWHERE) -> None:
    """Raises RequestError, with what would let it, for a method that looks at the model at work where it cannot."""
    if request.method.observes and observed is None:
        raise RequestError(f"method={request.method.name} looks at the model at work, {remedy}")


def fuse(
    request: FusionRequest,
    contents: Sequence[LoraWeights],
    styles: Sequence[LoraWeights],
    derived: ByteLru,
    observations: Observations | None = None,
    dtype: DtypeOf = in_float32,
) -> FusedLora:
    """All layers of `fuse_layers`, held together, as `dtype` would have those that have no factors."""
    fused = [
        layer.stored(dtype) for layer in fuse_layers(request, contents, styles, derived, observations=observations)
    ]
    return FusedLora(
        request.title,
        fingerprint(request, contents, styles, observations),
        {layer.key: layer.delta for layer in fused if layer.delta is not None},
        Summary(
            {layer.key: layer.report for layer in fused}, sum(len(lora.unmatched) for lora in (*contents, *styles))
        ),
        {layer.key: layer.rival for layer in fused if layer.rival is not None},
        request.method.schedule(request.values, {layer.key: layer.contest for layer in fused if layer.contest}),
    )


def _slices(loras: Sequence[LoraWeights]) -> dict[ModuleKey, list[ModuleKey]]:
    """Layer -> the keys under which the LoRAs hold it or slices of it, in the order in which the LoRAs name them."""
    found: dict[ModuleKey, list[ModuleKey]] = {}
    for key in dict.fromkeys(key for lora in loras for key in lora.deltas):
        found.setdefault(key.layer, []).append(key)
    return found


def _shares(
    keys: Sequence[ModuleKey], request: FusionRequest, sources: Sequence[Source], loras: Sequence[LoraWeights]
) -> list[Share]:
    shares = []
    for source, lora in zip(sources, loras):
        for key in keys:
            if key in lora.deltas:
                delta = lora.deltas[key]
                weight: float = getattr(request, key.part) * source.weight(key)
                start, stop = key.rows or (0, delta.shape[0])
                shares.append(Share(lora.name, lora.digest, key, delta, weight, start, stop))
    return shares


@dataclass(frozen=True, eq=False)
class _Walk:
    """What stays the same from layer to layer.

    overall
        What was made of all layers together.
    """

    request: FusionRequest
    values: Values
    contents: Sequence[LoraWeights]
    styles: Sequence[LoraWeights]
    derived: ByteLru
    inspected: bool
    observations: Observations | None
    overall: dict[AnyNeed, Any] = field(default_factory=dict)

    def pieces(self, layer: ModuleKey, slices: Sequence[ModuleKey]) -> list[Layer]:
        """The layer, cut where any of the LoRAs has its slices; without rows that none of them holds."""
        contents = _shares(slices, self.request, self.request.contents, self.contents)
        styles = _shares(slices, self.request, self.request.styles, self.styles)
        _check_shapes(layer, [*contents, *styles])
        cuts = sorted({row for share in (*contents, *styles) for row in (share.start, share.stop)})
        whole = all(share.key.rows is None for share in (*contents, *styles))
        pieces = []
        for start, stop in itertools.pairwise(cuts):
            content, style = (
                Side([share for share in shares if share.covers(start, stop)], start, stop)
                for shares in (contents, styles)
            )
            if content or style:
                key = layer if whole else ModuleKey(layer.name, layer.part, (start, stop))
                pieces.append(Layer(key, content, style, self._declared))
        return pieces

    def fuse(self, layer: Layer) -> FusedLayer:
        fused, weighed = self._fused(layer)
        if self.inspected and fused.report.outcome is Outcome.FUSED:
            return replace(fused, interference=self._interference(fused, weighed))
        return fused

    def _fused(self, layer: Layer) -> tuple[FusedLayer, Layer]:
        """The fused layer, and the layer with the weights that counted."""
        key, method, values = layer.key, self.request.method, self.values.at(layer.key.place.block)
        if not any(share.weight for side in (layer.content, layer.style) for share in side.shares):
            return FusedLayer(key, None, replace(_report(layer), outcome=Outcome.LEFT_OUT)), layer
        weights = method.weigh(layer, values) if layer.is_shared else EQUAL
        layer = layer.weighed(*weights)
        report = replace(_report(layer), weights=weights)
        made = method.fuse(layer, values) if method.takes(layer) else added_up(layer)
        if isinstance(made, LeftOut):
            return FusedLayer(key, None, replace(report, outcome=Outcome.LEFT_OUT)), layer
        if isinstance(made, Turns):
            won, lost = _sum(layer.content, layer.style), _sum(layer.style, layer.content)
            return FusedLayer(key, won, report, lost, made.contest), layer
        return FusedLayer(key, total([*made.styles, *made.contents]), _with_losses(report, made)), layer

    def _declared(self, need: AnyNeed, layer: Layer) -> Any:
        """What the method asks for. Raises LookupError for what it does not declare."""
        if need not in self.request.method.needs:
            raise LookupError(f"method {self.request.method.name} does not declare that it needs {need.name}")
        return need.fulfilled(self, layer)

    def kept(self, key: Hashable, make: Callable[[], Sized]) -> Any:
        """See Walk."""
        return self.derived.get(key, make)

    def once(self, need: AnyNeed, make: Callable[[Iterable[Layer]], Any]) -> Any:
        """See Walk."""
        if need not in self.overall:
            self.overall[need] = make(self._all())
        return self.overall[need]

    def seen(self, layer: Layer) -> Moments:
        """See Walk."""
        assert self.observations is not None
        return self.observations.of(layer)

    def _all(self) -> Iterator[Layer]:
        for layer, slices in _slices((*self.contents, *self.styles)).items():
            yield from self.pieces(layer, slices)

    def _interference(self, fused: FusedLayer, layer: Layer) -> Interference:
        svd = STYLE_INPUT.fulfilled(self, layer)
        k = self.request.method.directions(self.values).rank(svd.s.tolist())
        return interference(
            layer.content.deltas,
            layer.style.deltas,
            CONTENT_INPUT.fulfilled(self, layer),
            svd,
            k,
            fused.report.removed,
            meeting(*(need.fulfilled(self, layer).value for need in (CONTENT_ENERGY, STYLE_ENERGY))),
        )


def _sum(winner: Side, loser: Side) -> Delta:
    """The update while one side wins; nothing, in the form of the other side, if it has none."""
    return total(winner.deltas) if winner else total(loser.deltas).scaled(0.0)


def _report(layer: Layer) -> LayerReport:
    """What there is to fuse in a layer."""
    if layer.content and layer.style:
        outcome = Outcome.FUSED if layer.has_input_side else Outcome.UNPROJECTED
    else:
        outcome = Outcome.CONTENT_ONLY if layer.content else Outcome.STYLE_ONLY
    reason = "" if layer.has_input_side else NO_INPUT_SIDE
    return LayerReport(outcome, layer.content.energy, layer.style.energy, reason=reason)


def _with_losses(report: LayerReport, made: Sum) -> LayerReport:
    """What a projection took away."""
    if made.protected is None:
        return report
    left = sum(delta.energy() for delta in made.contents)
    return replace(report, removed_energy=max(report.content_energy - left, 0.0), protected=made.protected)


def _check_shapes(layer: ModuleKey, shares: Sequence[Share]) -> None:
    """Raises MismatchError unless all share one input side, and slices lie within the layer."""
    first = next((share for share in shares if share.key.rows is None), shares[0])
    for share in shares:
        out, in_ = share.delta.shape
        whole = share.key.rows is None
        same_rows = out == first.delta.shape[0] if whole else first.key.rows or share.stop <= first.stop
        if in_ != first.delta.shape[1] or out != share.stop - share.start or not same_rows:
            raise MismatchError(
                f"'{first.name}' and '{share.name}' are made for different models: layer {layer} is "
                f"{first.delta.shape[0]} x {first.delta.shape[1]} in one and {out} x {in_} in the other"
            )
