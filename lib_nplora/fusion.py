"""The only walk over layers: LoRAs in, their fusion out."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .cache import ByteLru
from .delta import Delta, total
from .errors import MismatchError
from .lowrank import exact_math
from .methods import Layer, Method, method_named
from .request import FusionRequest, Source
from .subspace import right_svd
from .weights import FusedLora, LayerReport, LoraWeights, ModuleKey, Outcome, Summary


@dataclass(frozen=True, eq=False)
class FusedLayer:
    """One step of the walk."""

    key: ModuleKey
    delta: Delta
    report: LayerReport


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


def fingerprint(request: FusionRequest, contents: Sequence[LoraWeights], styles: Sequence[LoraWeights]) -> str:
    """A hash of everything that changes the fused deltas."""
    settings = [request.mu, str(request.k), request.method, request.te, request.unet]
    sides = [
        [(source.te, source.unet, lora.digest) for source, lora in zip(sources, loras)]
        for sources, loras in ((request.contents, contents), (request.styles, styles))
    ]
    return hashlib.sha256(repr((settings, sides)).encode()).hexdigest()[:16]


def layers(contents: Sequence[LoraWeights], styles: Sequence[LoraWeights]) -> list[ModuleKey]:
    """Every layer that any of the LoRAs holds, whole or in slices, once, contents first."""
    return list(_slices((*contents, *styles)))


def fuse_layers(
    request: FusionRequest, contents: Sequence[LoraWeights], styles: Sequence[LoraWeights], bases: ByteLru
) -> Iterator[FusedLayer]:
    """Fuse `contents` with `styles`, which stand in the order of request.contents and request.styles.

    A layer that has contents only or styles only is added as it is. One that some LoRAs hold whole and others in slices
    of rows is fused slice by slice: the slices share their input side, so each slice of a content is projected with the
    basis of the style's module that holds those rows, whole or slice.
    `bases` keeps the styles' decompositions. Each delta of each LoRA is asked for once, so that LoRAs read from disk
    layer by layer are held one layer at a time.
    Raises MismatchError if a layer has another shape in one of the LoRAs, RequestError for an unknown method.
    """
    method = method_named(request.method)
    for layer, slices in _slices((*contents, *styles)).items():
        with exact_math():
            content = _shares(slices, request, request.contents, contents)
            style = _shares(slices, request, request.styles, styles)
            _check_shapes(layer, [*content, *style])
            cuts = sorted({row for share in (*content, *style) for row in (share.start, share.stop)})
            pieces = [
                _fuse_piece(layer, start, stop, method, request, content, style, bases)
                for start, stop in itertools.pairwise(cuts)
            ]
        yield from filter(None, pieces)


def fuse(
    request: FusionRequest, contents: Sequence[LoraWeights], styles: Sequence[LoraWeights], bases: ByteLru
) -> FusedLora:
    """All layers of `fuse_layers`, held together."""
    fused = list(fuse_layers(request, contents, styles, bases))
    return FusedLora(
        request.title,
        fingerprint(request, contents, styles),
        {layer.key: layer.delta for layer in fused},
        Summary(
            {layer.key: layer.report for layer in fused}, sum(len(lora.unmatched) for lora in (*contents, *styles))
        ),
    )


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


def _fuse_piece(
    layer: ModuleKey,
    start: int,
    stop: int,
    method: Method,
    request: FusionRequest,
    contents: Sequence[_Share],
    styles: Sequence[_Share],
    bases: ByteLru,
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
    content_energy, style_energy = (sum(delta.energy() for delta in side) for side in (given.contents, given.styles))

    projectable = all(delta.has_input_side for delta in (*given.contents, *given.styles))
    if not (contents and styles and projectable):
        lone = Outcome.CONTENT_ONLY if contents else Outcome.STYLE_ONLY
        outcome = Outcome.UNPROJECTED if contents and styles else lone
        reason = "" if projectable else "norms and biases have no input side"
        report = LayerReport(outcome, content_energy, style_energy, reason=reason)
        return FusedLayer(key, total([*given.styles, *given.contents]), report)

    basis = None
    if method.needs_basis:
        owner = tuple((share.lora.digest, share.key) for share in styles)
        basis = bases.get(owner, lambda: right_svd([share.delta for share in styles])).basis(request.k)
    fused = method.fuse(Layer(given.contents, given.styles, basis), request.mu)
    removed = max(content_energy - sum(delta.energy() for delta in fused.contents), 0.0)
    protected = 0.0 if basis is None else basis.shape[1] / basis.shape[0]
    report = LayerReport(Outcome.FUSED, content_energy, style_energy, removed, protected)
    return FusedLayer(key, total([*fused.styles, *fused.contents]), report)


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
