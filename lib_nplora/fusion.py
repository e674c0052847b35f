"""The only walk over layers: LoRAs in, their fusion out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .cache import ByteLru
from .errors import MismatchError
from .lowrank import LowRankDelta, concat, exact_math
from .methods import Layer, Method, method_named
from .request import FusionRequest, Source
from .subspace import right_svd
from .weights import FusedLora, LayerReport, LoraWeights, ModuleKey, Outcome, Summary


@dataclass(frozen=True, eq=False)
class FusedLayer:
    """One step of the walk."""

    key: ModuleKey
    delta: LowRankDelta
    report: LayerReport


@dataclass(frozen=True, eq=False)
class _Share:
    """What one LoRA holds for the layer at hand."""

    lora: LoraWeights
    delta: LowRankDelta
    weight: float


def fingerprint(request: FusionRequest, contents: Sequence[LoraWeights], styles: Sequence[LoraWeights]) -> str:
    """A hash of everything that changes the fused deltas."""
    settings = [request.mu, str(request.k), request.method, request.te, request.unet]
    sides = [
        [(source.te, source.unet, lora.digest) for source, lora in zip(sources, loras)]
        for sources, loras in ((request.contents, contents), (request.styles, styles))
    ]
    return hashlib.sha256(repr((settings, sides)).encode()).hexdigest()[:16]


def layer_keys(contents: Sequence[LoraWeights], styles: Sequence[LoraWeights]) -> list[ModuleKey]:
    """Every layer that any of the LoRAs holds, once, contents first."""
    return list(dict.fromkeys(key for lora in (*contents, *styles) for key in lora.deltas))


def fuse_layers(
    request: FusionRequest, contents: Sequence[LoraWeights], styles: Sequence[LoraWeights], bases: ByteLru
) -> Iterator[FusedLayer]:
    """Fuse `contents` with `styles`, which stand in the order of request.contents and request.styles.

    A layer that has contents only or styles only is added as it is. `bases` keeps the styles' decompositions. Each
    delta of each LoRA is asked for once, so that LoRAs read from disk layer by layer are held one layer at a time.
    Raises MismatchError if a layer has another shape in one of the LoRAs, RequestError for an unknown method.
    """
    method = method_named(request.method)
    for key in layer_keys(contents, styles):
        with exact_math():
            layer = _fuse_layer(
                key,
                method,
                request,
                _shares(key, request, request.contents, contents),
                _shares(key, request, request.styles, styles),
                bases,
            )
        yield layer


def fuse(
    request: FusionRequest, contents: Sequence[LoraWeights], styles: Sequence[LoraWeights], bases: ByteLru
) -> FusedLora:
    """All layers of `fuse_layers`, held together."""
    layers = list(fuse_layers(request, contents, styles, bases))
    return FusedLora(
        request.title,
        fingerprint(request, contents, styles),
        {layer.key: layer.delta for layer in layers},
        Summary({layer.key: layer.report for layer in layers}),
    )


def _shares(
    key: ModuleKey, request: FusionRequest, sources: Sequence[Source], loras: Sequence[LoraWeights]
) -> list[_Share]:
    multiplier: float = getattr(request, key.part)
    return [
        _Share(lora, lora.deltas[key], multiplier * getattr(source, key.part))
        for source, lora in zip(sources, loras)
        if key in lora.deltas
    ]


def _fuse_layer(
    key: ModuleKey,
    method: Method,
    request: FusionRequest,
    contents: Sequence[_Share],
    styles: Sequence[_Share],
    bases: ByteLru,
) -> FusedLayer:
    _check_shapes(key, [*contents, *styles])
    weighted = Layer(_weighted(contents), _weighted(styles))
    energy = sum(delta.energy() for delta in weighted.contents)
    if not (contents and styles):
        outcome = Outcome.CONTENT_ONLY if contents else Outcome.STYLE_ONLY
        return FusedLayer(key, concat([*weighted.styles, *weighted.contents]), LayerReport(outcome, energy))

    basis = None
    if method.needs_basis:
        owner = tuple(share.lora.digest for share in styles)
        basis = bases.get((owner, key), lambda: right_svd([share.delta for share in styles])).basis(request.k)
    fused = method.fuse(Layer(weighted.contents, weighted.styles, basis), request.mu)
    removed = max(energy - sum(delta.energy() for delta in fused.contents), 0.0)
    return FusedLayer(key, concat([*fused.styles, *fused.contents]), LayerReport(Outcome.FUSED, energy, removed))


def _weighted(shares: Sequence[_Share]) -> list[LowRankDelta]:
    return [share.delta.scaled(share.weight) for share in shares]


def _check_shapes(key: ModuleKey, shares: Sequence[_Share]) -> None:
    first = shares[0]
    for share in shares[1:]:
        if share.delta.shape != first.delta.shape:
            raise MismatchError(
                f"'{first.lora.name}' and '{share.lora.name}' are made for different models: layer {key.name} is "
                f"{first.delta.shape[0]} x {first.delta.shape[1]} in one and "
                f"{share.delta.shape[0]} x {share.delta.shape[1]} in the other"
            )
