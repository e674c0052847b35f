"""The only walk over layers: LoRAs in, their fusion out."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ..errors import MismatchError, RequestError
from ..fusion.fused import FusedLora
from ..fusion.outcome import LayerReport, Outcome, Summary
from ..layers.key import ModuleKey
from ..layers.weights import LoraWeights
from ..maths.cache import ByteLru
from ..maths.delta import Delta, total
from ..maths.lowrank import exact_math
from ..maths.subspace import RightSvd, right_svd
from ..methods.selection import EVEN, Contest, Importance, Schedule, Winner, importance, rank_of, top_k
from ..methods.table import OPTIONS, Basis, Layer, Method, Settings, method_named, scope_named
from ..request.request import FusionRequest, Source
from .interference import Interference, interference


@dataclass(frozen=True, eq=False)
class FusedLayer:
    """One step of the walk.

    delta
        The update of the layer; of one that is contested, while the content wins; None if the method leaves it out.
    rival
        Of a contested layer, the update while the style wins.
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


@dataclass(frozen=True, eq=False)
class _Share:
    """What one LoRA holds for the layer at hand, or for a slice of it.

    start, stop
        The layer's output rows that `delta` is for.
    """

    lora: LoraWeights
    key: ModuleKey
    delta: Delta
    weight: float
    start: int
    stop: int

    def covers(self, start: int, stop: int) -> bool:
        return self.start <= start and stop <= self.stop

    def weighted(self, start: int, stop: int) -> Delta:
        """The weighted delta of these of the layer's rows."""
        delta = self.delta
        if (start, stop) != (self.start, self.stop):
            delta = delta.rows(start - self.start, stop - self.start)
        return delta.scaled(self.weight)


def settings_of(request: FusionRequest) -> Settings:
    """What the request's method is to read. Raises RequestError for what is unknown, and what makes no sense."""
    method = method_named(request.method)
    settings = method.settings(request.mu, **{name: getattr(request, name) for name in OPTIONS})
    scope_named(settings.scope)
    if method.rule:
        method.rule(settings)
    return settings


def unread(request: FusionRequest) -> list[str]:
    """What is given in the request that its method does not read, as remarks."""
    reads = method_named(request.method).reads
    keys = [f"{name}=" for name in OPTIONS if getattr(request, name) is not None and name not in reads]
    return [f"{', '.join(keys)} has no effect with method={request.method}"] if keys else []


def fingerprint(request: FusionRequest, contents: Sequence[LoraWeights], styles: Sequence[LoraWeights]) -> str:
    """A hash of everything that changes the fused deltas."""
    own = settings_of(request)
    read = [str(request.k) if name == "k" else getattr(own, name) for name in method_named(request.method).reads]
    settings = [request.method, request.te, request.unet, *read]
    sides = [
        [(source.te, source.unet, lora.digest) for source, lora in zip(sources, loras)]
        for sources, loras in ((request.contents, contents), (request.styles, styles))
    ]
    return hashlib.sha256(repr((settings, sides)).encode()).hexdigest()[:16]


def layers(contents: Sequence[LoraWeights], styles: Sequence[LoraWeights]) -> list[ModuleKey]:
    """Every layer that any of the LoRAs holds, whole or in slices, once, contents first."""
    return list(_slices((*contents, *styles)))


def fuse_layers(
    request: FusionRequest,
    contents: Sequence[LoraWeights],
    styles: Sequence[LoraWeights],
    derived: ByteLru,
    inspected: bool = False,
) -> Iterator[FusedLayer]:
    """Fuse `contents` with `styles`, which stand in the order of request.contents and request.styles.

    A layer that has contents only or styles only is added as it is, unless the method says otherwise. One that some
    LoRAs hold whole and others in slices of rows is fused slice by slice: the slices share their input side, so each
    slice of a content is projected with the basis of the style's module that holds those rows, whole or slice.
    `derived` keeps decompositions and importances. Layers that both sides hold are measured if they are `inspected`.
    Each delta of each LoRA is asked for once, so that LoRAs read from disk layer by layer are held one at a time.
    Raises MismatchError if a layer has another shape in one of the LoRAs, RequestError for an unknown method or for one
    that these LoRAs have no layers for.
    """
    walk = _Walk(request, method_named(request.method), settings_of(request), derived, inspected)
    walk.check_owner(contents, styles)
    for layer, slices in _slices((*contents, *styles)).items():
        with exact_math():
            content = _shares(slices, request, request.contents, contents)
            style = _shares(slices, request, request.styles, styles)
            _check_shapes(layer, [*content, *style])
            cuts = sorted({row for share in (*content, *style) for row in (share.start, share.stop)})
            pieces = [walk.fuse(layer, start, stop, content, style) for start, stop in itertools.pairwise(cuts)]
        yield from filter(None, pieces)


def fuse(
    request: FusionRequest, contents: Sequence[LoraWeights], styles: Sequence[LoraWeights], derived: ByteLru
) -> FusedLora:
    """All layers of `fuse_layers`, held together."""
    fused = list(fuse_layers(request, contents, styles, derived))
    return FusedLora(
        request.title,
        fingerprint(request, contents, styles),
        {layer.key: layer.delta for layer in fused if layer.delta is not None},
        Summary(
            {layer.key: layer.report for layer in fused}, sum(len(lora.unmatched) for lora in (*contents, *styles))
        ),
        {layer.key: layer.rival for layer in fused if layer.rival is not None},
        schedule_of(request, {layer.key: layer.contest for layer in fused if layer.contest}),
    )


def schedule_of(request: FusionRequest, contests: Mapping[ModuleKey, Contest]) -> Schedule | None:
    """Who wins the contested layers when; None if there are none. Raises RequestError."""
    rule = method_named(request.method).rule
    return Schedule(contests, rule(settings_of(request))) if rule and contests else None


def _slices(loras: Sequence[LoraWeights]) -> dict[ModuleKey, list[ModuleKey]]:
    """Layer -> the keys under which the LoRAs hold it or slices of it, in the order in which the LoRAs name them."""
    found: dict[ModuleKey, list[ModuleKey]] = {}
    for key in dict.fromkeys(key for lora in loras for key in lora.deltas):
        found.setdefault(key.layer, []).append(key)
    return found


def _shares(
    keys: Sequence[ModuleKey], request: FusionRequest, sources: Sequence[Source], loras: Sequence[LoraWeights]
) -> list[_Share]:
    shares = []
    for source, lora in zip(sources, loras):
        for key in keys:
            if key in lora.deltas:
                delta = lora.deltas[key]
                weight: float = getattr(request, key.part) * getattr(source, key.part)
                start, stop = key.rows or (0, delta.shape[0])
                shares.append(_Share(lora, key, delta, weight, start, stop))
    return shares


@dataclass(frozen=True, eq=False)
class _Walk:
    """What stays the same from layer to layer."""

    request: FusionRequest
    method: Method
    settings: Settings
    derived: ByteLru
    inspected: bool

    def check_owner(self, contents: Sequence[LoraWeights], styles: Sequence[LoraWeights]) -> None:
        """Raises RequestError if the method gives one side no layer at all."""
        for side, loras in (("content", contents), ("style", styles)):
            if self.method.owner and not any(self._owner(key) == side for lora in loras for key in lora.deltas):
                names = " and ".join(f"'{lora.name}'" for lora in loras)
                raise RequestError(
                    f"method={self.request.method} takes the {side} from one block of SDXL, and {names} has no layer "
                    "there: choose another method"
                )

    def fuse(
        self, layer: ModuleKey, start: int, stop: int, contents: Sequence[_Share], styles: Sequence[_Share]
    ) -> FusedLayer | None:
        """Fuse what the LoRAs hold for these rows; None if they hold nothing."""
        everything = [*contents, *styles]
        contents, styles = ([share for share in side if share.covers(start, stop)] for side in (contents, styles))
        if not (contents or styles):
            return None
        whole = all(share.key.rows is None for share in everything)
        key = layer if whole else ModuleKey(layer.name, layer.part, (start, stop))
        given = Layer(
            [share.weighted(start, stop) for share in contents], [share.weighted(start, stop) for share in styles]
        )
        fused = self._fused(key, given, _report(given), contents, styles)
        if self.inspected and fused.report.outcome is Outcome.FUSED:
            return replace(fused, interference=self._interference(fused, given, contents, styles))
        return fused

    def _fused(
        self,
        key: ModuleKey,
        given: Layer,
        report: LayerReport,
        contents: Sequence[_Share],
        styles: Sequence[_Share],
    ) -> FusedLayer:
        if self.method.owner:
            return self._owned(key, given, report)
        if self.method.rule and (contest := self._contest(key, report.outcome, given, contents, styles)):
            won, lost = _sum(given.contents, given.styles), _sum(given.styles, given.contents)
            return FusedLayer(key, won, report, lost, contest)
        if not self.method.fuse or not (report.outcome is Outcome.FUSED or (self.method.alone and not report.reason)):
            return FusedLayer(key, total([*given.styles, *given.contents]), report)
        basis = self._basis(contents, styles, key.rows)
        fused = self.method.fuse(Layer(given.contents, given.styles, basis), self.settings)
        if basis is not None:
            report = _with_losses(report, given, fused, basis)
        return FusedLayer(key, total([*fused.styles, *fused.contents]), report)

    def _owner(self, key: ModuleKey) -> Winner | None:
        return self.method.owner(str(key.name)) if self.method.owner and key.part == "unet" else None

    def _owned(self, key: ModuleKey, given: Layer, report: LayerReport) -> FusedLayer:
        deltas = {"content": given.contents, "style": given.styles, None: ()}[self._owner(key)]
        if deltas:
            return FusedLayer(key, total(list(deltas)), report)
        return FusedLayer(key, None, replace(report, outcome=Outcome.LEFT_OUT))

    def _contest(
        self,
        key: ModuleKey,
        outcome: Outcome,
        given: Layer,
        contents: Sequence[_Share],
        styles: Sequence[_Share],
    ) -> Contest | None:
        """What the sides weigh in the layer; None if it is out of scope, or one has nothing to win it with."""
        in_scope = key.part == "unet" and scope_named(self.settings.scope)(str(key.name))
        if not in_scope or not (self.method.alone or outcome is Outcome.FUSED):
            return None
        if not self.method.weighs:
            return EVEN
        k = top_k(*(sum(rank_of(delta) for delta in side) for side in (given.contents, given.styles)))
        content, style = (self._importance(shares, key.rows, k) for shares in (contents, styles))
        return Contest(content, style) if content.total and style.total else None

    def _importance(self, shares: Sequence[_Share], rows: tuple[int, int] | None, k: int) -> Importance:
        """Kept for weight 1, if there is one LoRA: other weights of it cost nothing."""
        common = shares[0].weight if len(shares) == 1 else 1.0
        parts = [replace(share, weight=share.weight if len(shares) > 1 else 1.0) for share in shares]
        owner = (k, rows, *((share.lora.digest, share.key, share.weight) for share in parts))

        def weigh() -> Importance:
            start, stop = rows or (shares[0].start, shares[0].stop)
            return importance(total([share.weighted(start, stop) for share in parts]), k)

        return self.derived.get(owner, weigh).scaled(common)

    def _basis(
        self, contents: Sequence[_Share], styles: Sequence[_Share], rows: tuple[int, int] | None
    ) -> Tensor | None:
        """On the input side that of whole modules, which slices of them share; on the output side that of the rows."""
        kind = self.method.basis
        if kind is None:
            return None
        if kind is not Basis.STYLE_OUTPUT:
            return self._svd(contents if kind is Basis.CONTENT_INPUT else styles).basis(self.request.k)
        owner = (rows, _owner_of(styles))
        return self.derived.get(owner, lambda: right_svd(_transposed(styles, rows))).basis(self.request.k)

    def _svd(self, shares: Sequence[_Share]) -> RightSvd:
        """Of the whole modules, stacked."""
        return self.derived.get(_owner_of(shares), lambda: right_svd([share.delta for share in shares]))

    def _interference(
        self, fused: FusedLayer, given: Layer, contents: Sequence[_Share], styles: Sequence[_Share]
    ) -> Interference:
        svd = self._svd(styles)
        k = self.request.k.rank(svd.s.tolist())
        return interference(given.contents, given.styles, self._svd(contents), svd, k, fused.report.removed)


def _owner_of(shares: Sequence[_Share]) -> tuple[tuple[str, ModuleKey], ...]:
    return tuple((share.lora.digest, share.key) for share in shares)


def _transposed(shares: Sequence[_Share], rows: tuple[int, int] | None) -> list[Delta]:
    start, stop = rows or (shares[0].start, shares[0].stop)
    return [replace(share, weight=1.0).weighted(start, stop).transposed() for share in shares]


def _sum(winner: Sequence[Delta], loser: Sequence[Delta]) -> Delta:
    """The update while one side wins; nothing, in the form of the other side, if it has none."""
    return total(winner) if winner else total(loser).scaled(0.0)


def _report(given: Layer) -> LayerReport:
    """What there is to fuse in a layer."""
    deltas = [*given.contents, *given.styles]
    content_energy, style_energy = (sum(delta.energy() for delta in side) for side in (given.contents, given.styles))
    projectable = all(delta.has_input_side for delta in deltas)
    if given.contents and given.styles:
        outcome = Outcome.FUSED if projectable else Outcome.UNPROJECTED
    else:
        outcome = Outcome.CONTENT_ONLY if given.contents else Outcome.STYLE_ONLY
    reason = "" if projectable else "norms and biases have no input side"
    return LayerReport(outcome, content_energy, style_energy, reason=reason)


def _with_losses(report: LayerReport, given: Layer, fused: Layer, basis: Tensor) -> LayerReport:
    """What a projection took away."""
    return replace(
        report,
        removed_energy=max(report.content_energy - sum(delta.energy() for delta in fused.contents), 0.0),
        protected=basis.shape[1] / basis.shape[0],
    )


def _check_shapes(layer: ModuleKey, shares: Sequence[_Share]) -> None:
    """Raises MismatchError unless all share one input side, and slices lie within the layer."""
    first = next((share for share in shares if share.key.rows is None), shares[0])
    for share in shares:
        out, in_ = share.delta.shape
        whole = share.key.rows is None
        same_rows = out == first.delta.shape[0] if whole else first.key.rows or share.stop <= first.stop
        if in_ != first.delta.shape[1] or out != share.stop - share.start or not same_rows:
            raise MismatchError(
                f"'{first.lora.name}' and '{share.lora.name}' are made for different models: layer {layer} is "
                f"{first.delta.shape[0]} x {first.delta.shape[1]} in one and {out} x {in_} in the other"
            )
