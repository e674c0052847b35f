"""What a request holds of what the user asked for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.errors import RequestError
from lib_nplora.layers.block import Block
from lib_nplora.layers.by_block import ByBlock
from lib_nplora.layers.key import ModuleKey
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.methods.projections import MU, K
from lib_nplora.methods.table import methods, parameters, usual
from lib_nplora.methods.turns import BETA
from lib_nplora.request.request import FusionRequest, Source
from lib_nplora.request.tag import format_tag

from . import asked
from .asked import roles, tag

MID, IN4, TE1 = Block("mid"), Block("in", 4), Block("te", 1)


def pair(**given) -> FusionRequest:
    return FusionRequest.of((Source("a"),), (Source("b"),), **given)


def test_title():
    assert roles("<lora:a:role=content><lora:b:role=content><lora:c:role=style>").title == "a + b x c"


def test_a_source_weighs_by_part_and_block():
    source = Source("a", 0.5, 0.8, ((TE1, 2.0), (Block("in"), 3.0), (IN4, -1.0)))
    weights = {
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "te"): 2.0,
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", "te"): 0.5,
        ("input_blocks_4_1_proj_in", "unet"): -1.0,
        ("input_blocks_5_1_proj_in", "unet"): 3.0,
        ("middle_block_1_proj_in", "unet"): 0.8,
        ("no layer of ours", "unet"): 0.8,
    }
    assert {key: source.weight(ModuleKey(*key)) for key in weights} == weights
    assert Source("a", 0.5, 0.8).weight(ModuleKey("input_blocks_4_1_proj_in", "unet")) == 0.8


def test_the_usual_method_is_meant_where_none_is_named():
    assert pair().method is pair(method=None).method is usual()
    assert pair(method=" KLoRA ").method is pair(method=methods()["klora"]).method is methods()["klora"]
    with pytest.raises(RequestError, match=r"there is no method 'dircet'\. Did you mean 'direct'\?"):
        pair(method="dircet")


def test_values_are_those_that_the_method_reads():
    asked_for = pair(method="np", mu=ByBlock(2.0, ((MID, 3.0),)), alpha=7.0)
    values = asked_for.values
    assert set(values.held) == {"mu", "k", "balance"}
    assert values[MU] == values.at(IN4)[MU] == 2.0
    assert values.at(MID)[MU] == 3.0
    assert values.at(MID)[K] == RankRule()
    assert values.text(MU) == "2,mid@3"
    assert pair(method="klora").values[BETA] == 0.5
    assert pair(method="klora*").values[BETA] == 1.3
    assert pair(method="klora*", beta=0.5).values[BETA] == 0.5


def test_a_default_is_not_given():
    assert pair(mu=0.5, k=None).given == pair(mu=ByBlock(0.5)).given == ()
    assert pair(mu=ByBlock(0.5, ((MID, 0.5),))).given == (("mu", ByBlock(0.5, ((MID, 0.5),))),)
    assert pair(method="klora", beta=0.5).given == ()
    assert pair(method="klora*", beta=0.5).given == (("beta", 0.5),)


def test_what_the_method_does_not_read_is_given_whatever_its_value():
    assert pair(method="klora", mu=0.5).given == (("mu", ByBlock(0.5)),)
    assert pair(method="klora", mu=None).given == ()


@given(st.fixed_dictionaries({}, optional=asked.given))
def test_what_is_given_stands_in_the_order_of_the_table(given_):
    forwards, backwards = pair(**given_), pair(**dict(reversed(given_.items())))
    assert forwards == backwards
    assert hash(forwards) == hash(backwards)
    assert [name for name, _ in forwards.given] == [name for name in parameters() if name in dict(forwards.given)]


@pytest.mark.parametrize(
    ("text", "remarks"),
    [
        ("<nplora:a:b:2:k=4>", []),
        ("<nplora:a:b:method=klora:alpha=3>", []),
        ("<nplora:a:b:2:method=klora>", ["mu= has no effect with method=klora"]),
        ("<nplora:a:b:0.5:method=klora>", ["mu= has no effect with method=klora"]),
        ("<nplora:a:b:k=all:method=klora>", ["k= has no effect with method=klora"]),
        ("<nplora:a:b:method=klora>", []),
        ("<nplora:a:b:mid@2:method=klora>", ["mu= has no effect with method=klora"]),
        ("<nplora:a:b:seed=3:method=direct:alpha=3:k=4>", ["k=, alpha=, seed= has no effect with method=direct"]),
        ("<nplora:a:b:2:method=hard>", ["mu= has no effect with method=hard"]),
    ],
)
def test_what_the_method_does_not_read_is_remarked(text, remarks):
    assert tag(text).remarks == remarks


def test_a_parameter_that_there_is_not_is_no_slip_that_goes_unseen():
    for given_ in ({"mue": 2.0}, {"mue": None}, {"mu": 1.0, "mue": 2.0}):
        with pytest.raises(TypeError, match="no method reads mue"):
            pair(**given_)
        with pytest.raises(TypeError, match="no method reads mue"):
            pair().with_values(**given_)


def test_with_values():
    plain = pair(method="klora*", alpha=3.0, mu=2.0)
    assert plain.with_values(alpha=None) == pair(method="klora*", mu=2.0)
    assert plain.with_values(beta=1.3) == plain
    assert plain.with_values(beta=0.2, mu=None) == pair(method="klora*", alpha=3.0, beta=0.2)
    assert plain.with_values(mu=ByBlock(2.0)) == plain


def test_with_method_drops_what_it_does_not_read():
    both = pair(mu=2.0, beta=1.3, seed=4)
    assert both.with_method("np") == pair(mu=2.0)
    assert both.with_method("klora") == pair(method="klora", beta=1.3)
    assert both.with_method("klora*") == pair(method="klora*")
    with pytest.raises(RequestError, match="there is no method 'x'"):
        both.with_method("x")


@given(asked.in_one_tag, asked.method_names)
def test_with_method_still_reads_back(request_, name):
    changed = request_.with_method(name)
    assert changed.unread == changed.remarks == []
    assert tag(format_tag(changed)) == changed
    assert changed.with_method(name) == changed


def test_blocks_are_all_that_have_an_exception():
    request = FusionRequest.of(
        (Source("a", exceptions=((MID, 1.0),)), Source("c")),
        (Source("b", exceptions=((TE1, 1.0), (MID, 0.0))),),
        mu=ByBlock(0.5, ((IN4, 1.0), (MID, 2.0))),
    )
    assert sorted(request.blocks) == [TE1, IN4, MID]
    assert pair(mu=3.0).blocks == []


def test_values_that_do_not_go_together_are_refused():
    with pytest.raises(RequestError, match=r"alpha=0 makes no sawtooth: klora\* takes an alpha above 0"):
        pair(method="klora*", alpha=0.0).check()
    pair(method="klora", alpha=0.0).check()


@pytest.mark.parametrize(
    ("source", "multipliers", "told"),
    [
        (Source("a", 1.0, -1.1e12), {}, "-1.1e+12"),
        (Source("a", 1e308, 1.0), {"te": 1e5}, "inf"),
        (Source("a", exceptions=((MID, 1e8),)), {"unet": 1e5}, "1e+13"),
    ],
)
def test_weights_that_leave_float32_are_refused(source, multipliers, told):
    for sides in (((source,), (Source("b"),)), ((Source("b"),), (source,))):
        with pytest.raises(
            RequestError, match=rf"^the weight {re.escape(told)} of 'a' is too large: 1e12 is the most$"
        ):
            FusionRequest.of(*sides, **multipliers).check()
    FusionRequest.of((Source("a", 1e12, -1e12),), (Source("b"),)).check()
