"""What the walk makes and keeps for methods."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from lib_nplora.fusion.fused import FusedLora
from lib_nplora.fusion.walk import fuse, fuse_layers
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.methods.layer import Layer, Need
from lib_nplora.methods.method import Method, Sum
from lib_nplora.methods.parameter import Values
from lib_nplora.methods.table import method_named, methods
from lib_nplora.request.request import FusionRequest, Source

from ..matrices import lora, random_delta
from ..methods.layers import FOR_ANY_LAYER

CONTENT = lora("dog", random_delta(12, 20, 3, 1), random_delta(12, 20, 3, 3))
STYLE = lora("vangogh", random_delta(12, 20, 2, 5), random_delta(12, 20, 2, 7))


@dataclass(frozen=True)
class Loudness:
    value: float
    nbytes: int = 8


class Loud:
    """A method that lowers the content to a share that it needs to be told, and counts how often that is made."""

    def __init__(self, name: str = "loudness of the style") -> None:
        self.made: list[ModuleKey] = []
        self.need: Need[Loudness] = Need(name, lambda layer: layer.style.identity, self._make)
        self.method = Method("loud", 1000, "a test", "a test", "", self._fuse, needs=(self.need,))

    def _make(self, layer: Layer) -> Loudness:
        self.made.append(layer.key)
        return Loudness(sum(delta.energy() for delta in layer.style.plain) ** -0.5)

    def _fuse(self, layer: Layer, values: Values) -> Sum:
        share = self.need.of(layer).value
        return Sum([delta.scaled(share) for delta in layer.content.deltas], layer.style.deltas)


def run(
    method: Method, kept: ByteLru, content: LoraWeights = CONTENT, style: LoraWeights = STYLE, **weights: float
) -> FusedLora:
    request = FusionRequest.of((Source("dog"),), (Source("vangogh", **weights),), method)
    return fuse(request, [content], [style], kept)


@pytest.mark.parametrize("name", [name for name in FOR_ANY_LAYER if methods()[name].needs])
def test_what_a_method_does_not_declare_is_refused(name):
    key = ModuleKey("0_attn1_to_q", "unet")
    sides = (LoraWeights(x.name, x.digest, {key: next(iter(x.deltas.values()))}) for x in (CONTENT, STYLE))
    silent = replace(method_named(name), needs=())
    balance = "whole" if silent.parameter("balance") else None
    request = FusionRequest.of((Source("dog"),), (Source("vangogh"),), silent, balance=balance)
    with pytest.raises(LookupError, match=r"method \S+ does not declare that it needs \S+"):
        fuse(request, [next(sides)], [next(sides)], ByteLru(0))


def test_a_need_is_made_once_a_layer_and_kept():
    loud, kept = Loud(), ByteLru(2**20)
    fused = run(loud.method, kept)
    assert loud.made == list(CONTENT.deltas)
    for key, delta in fused.deltas.items():
        share = STYLE.deltas[key].energy() ** -0.5
        expected = STYLE.deltas[key].dense() + share * CONTENT.deltas[key].dense()
        assert delta.dense().sub(expected).norm() < 1e-5 * expected.norm()
    run(loud.method, kept, unet=0.5)
    run(loud.method, kept, content=replace(CONTENT, digest="another"))
    assert len(loud.made) == 2
    run(loud.method, kept, style=replace(STYLE, digest="another"))
    assert len(loud.made) == 4


def test_needs_of_one_name_and_key_are_one_and_others_are_not():
    one, same, other = Loud(), Loud(), Loud("something else")
    kept = ByteLru(2**20)
    for loud in (one, same, other):
        run(loud.method, kept)
    assert [len(loud.made) for loud in (one, same, other)] == [2, 0, 2]


def test_nothing_is_made_for_layers_that_are_only_added_up_or_left_out():
    loud, (first, second) = Loud(), CONTENT.deltas
    run(loud.method, ByteLru(0), style=replace(STYLE, deltas={first: STYLE.deltas[first]}))
    assert loud.made == [first]
    request = FusionRequest.of((Source("dog", unet=0.0),), (Source("vangogh", unet=0.0),), loud.method)
    assert not fuse(request, [CONTENT], [STYLE], ByteLru(0)).deltas
    assert loud.made == [first]
    run(loud.method, ByteLru(0), content=replace(CONTENT, deltas={second: CONTENT.deltas[second]}))
    assert loud.made == [first, second]


def test_an_inspection_needs_no_declaration():
    request = FusionRequest.of((Source("dog"),), (Source("vangogh"),), "direct")
    rows = list(fuse_layers(request, [CONTENT], [STYLE], ByteLru(0), inspected=True))
    assert all(row.interference is not None for row in rows)
