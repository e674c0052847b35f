"""Requests of every kind, and tags as a host hands them over."""

from __future__ import annotations

import math
import re
from typing import TypeVar

from hypothesis import strategies as st

from lib_nplora.layers.block import LABELS, UNKNOWN, Block
from lib_nplora.layers.by_block import ByBlock, Exceptions
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.methods.table import methods
from lib_nplora.methods.texts import HARD
from lib_nplora.request.request import FusionRequest, Source
from lib_nplora.request.roles import parse_roles
from lib_nplora.request.tag import parse_tag, tag_keys

T = TypeVar("T")

HOST_TAG = re.compile(r"<(\w+):([^>]+)>")
"""How the WebUIs find tags (modules/extra_networks.py, re_extra_net). They split what is inside at ':'."""


def pieces(prompt: str) -> list[tuple[str, list[str]]]:
    """(tag, items) of each tag, as the host hands them over."""
    return [(match[1], match[2].split(":")) for match in HOST_TAG.finditer(prompt)]


def tag(text: str) -> FusionRequest:
    (name, items), *rest = pieces(text)
    assert name == "nplora"
    assert not rest
    return parse_tag(items)


def roles(text: str) -> FusionRequest:
    return parse_roles([items for _, items in pieces(text)])


blocks = st.builds(Block, st.sampled_from((*LABELS, UNKNOWN)), st.none() | st.integers(0, 9999))


def exceptions(values: st.SearchStrategy[T]) -> st.SearchStrategy[Exceptions[T]]:
    """Up to four, in order; often none."""
    some = st.dictionaries(blocks, values, max_size=4)
    return some.map(lambda found: tuple(sorted(found.items(), key=lambda pair: pair[0])))


names = (
    st.text(st.characters(exclude_characters=":><=", exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)
)
weights = st.floats(-1e6, 1e6)
mus = st.one_of(st.just(HARD), st.floats(0, 1e6))
ks = st.one_of(
    st.just(RankRule()),
    st.builds(RankRule, count=st.integers(1, 4096)),
    st.builds(RankRule, percent=st.floats(0, 100, exclude_min=True)),
)
given = {
    "mu": st.one_of(mus, st.builds(ByBlock, mus, exceptions(mus))),
    "k": ks,
    "balance": st.sampled_from(["off", "layer", "down", "whole"]),
    "alpha": weights,
    "beta": weights,
    "scope": st.sampled_from(["attention", "all"]),
    "density": st.floats(0, 1, exclude_min=True),
    "seed": st.integers(0, 2**32 - 1),
}
"""Parameter -> values of it."""

method_names = st.sampled_from(list(methods()))
options = {"method": method_names, **{name: st.none() | values for name, values in given.items()}}

lone_source = st.builds(
    lambda name, weight, by_block: (Source(name, weight, weight, by_block),), names, weights, exceptions(weights)
)
sources = st.lists(st.builds(Source, names, weights, weights, exceptions(weights)), min_size=1, max_size=3).map(tuple)

in_one_tag = st.builds(FusionRequest.of, contents=lone_source, styles=lone_source, te=weights, unet=weights, **options)
in_roles = st.builds(FusionRequest.of, contents=sources, styles=sources, **options)

numberish = st.text("0123456789.,eE+-_%nainfhardmou@ ٣½\u2212\u00a0", max_size=12)
keys = st.sampled_from([*tag_keys(), "role", "dyn", "blocks", "Mu", " k ", ""])
hostile_items = st.lists(
    st.one_of(
        st.text(max_size=20),
        numberish,
        st.builds("{}={}".format, keys, numberish),
        st.builds("{}={}".format, st.text(max_size=8), st.text(max_size=8)),
    ),
    max_size=7,
)


def check_sound(request: FusionRequest) -> None:
    """What holds of every request that a text can make."""
    mu = dict(request.given).get("mu", ByBlock(0.5))
    assert all(value >= 0 for value in (mu.usual, *(value for _, value in mu.exceptions)))
    every = [*request.contents, *request.styles]
    assert all(source.name for source in every)
    values = [request.te, request.unet]
    for source in every:
        values += [source.te, source.unet, *(weight for _, weight in source.exceptions)]
    assert all(map(math.isfinite, values))
