"""A fusion as roles on ordinary tags, through the host's eyes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.errors import RequestError
from lib_nplora.layers.block import Block
from lib_nplora.layers.by_block import ByBlock
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.methods.table import parameters
from lib_nplora.request.request import FusionRequest, Source
from lib_nplora.request.roles import ROLES, foreign_remarks, format_roles, has_role, parse_roles, role_keys

from .asked import HOST_TAG, check_sound, hostile_items, in_one_tag, in_roles, pieces, roles

MID, TE1 = Block("mid"), Block("te", 1)


@given(in_roles)
def test_roles_read_back_through_the_host(request_):
    text = format_roles(request_)
    assert roles(text) == request_
    assert HOST_TAG.sub("", text).strip() == ""
    assert all(name == "lora" and has_role(items) for name, items in pieces(text))


@given(in_one_tag)
def test_roles_fold_the_multipliers_into_the_weights(request_):
    read = roles(format_roles(request_))
    for before, after in zip((*request_.contents, *request_.styles), (*read.contents, *read.styles), strict=True):
        assert after.te == before.te * request_.te
        assert after.unet == before.unet * request_.unet
        assert after.exceptions == tuple(
            (block, weight * (request_.te if block.label == "te" else request_.unet))
            for block, weight in before.exceptions
        )
    assert (read.te, read.unet) == (1, 1)


def test_defaults_vanish():
    plain = FusionRequest.of((Source("dog"),), (Source("van gogh"),))
    assert format_roles(plain) == "<lora:dog:1:role=content> <lora:van gogh:1:role=style>"


def test_writes_exceptions_by_block():
    request = FusionRequest.of(
        (Source("dog", 0.8, 0.5, ((TE1, 2.0), (MID, 3.0))),),
        (Source("van gogh"),),
        "klora",
        te=0.5,
        mu=ByBlock(0.5, ((MID, 2.0),)),
        alpha=3.0,
    )
    assert format_roles(request) == (
        "<lora:dog:0.4:0.5:role=content:blocks=te1@1,mid@3:mu=0.5,mid@2:method=klora:alpha=3> "
        "<lora:van gogh:0.5:1:role=style>"
    )


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("a:0.8", Source("a", 0.8, 0.8)),
        ("a:0.8:0.5", Source("a", 0.8, 0.5)),
        ("a", Source("a")),
        ("a:te=0.3", Source("a", 0.3, 0.3)),
        ("a:unet=0.3", Source("a", 1.0, 0.3)),
        ("a:0.8:unet=0.3", Source("a", 0.8, 0.3)),
        ("a:0.8:0.5:te=0.1:unet=0.2", Source("a", 0.1, 0.2)),
        ("a:0.8:blocks=MID@2, te1@0", Source("a", 0.8, 0.8, ((TE1, 0.0), (MID, 2.0)))),
        ("a:-1e-05", Source("a", -1e-05, -1e-05)),
    ],
)
def test_role_weights_mean_what_they_mean_to_the_host(text, source):
    """extensions-builtin/Lora/extra_networks_lora.py: te, then unet, which follows te; named ones win."""
    assert roles(f"<lora:{text}:role=content><lora:b:role=style>").contents == (source,)


def test_shared_options_stand_in_any_role_tag():
    expected = FusionRequest.of((Source("a"),), (Source("b"),), "direct", mu=2.0, k=RankRule(count=4))
    assert roles("<lora:a:1:role=content:mu=2> <lora:b:1:role=style:k=4:method=direct>") == expected
    assert roles("<lora:b:1:ROLE= Style :k=4:mu=2> <lora:a:1:mu=2:role=content:method=direct>") == expected


def test_each_parameter_has_a_key():
    assert set(parameters()) <= set(role_keys())
    assert len(set(role_keys())) == len(role_keys())


KNOWN_WITH_A_ROLE = "role, te, unet, dyn, blocks, mu, k, balance, method, alpha, beta, scope, density, seed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<lora:a:1:role=content>", "a has role=content, but no LoRA has role=style"),
        ("<lora:a:role=style><lora:b:role=style>", "a, b has role=style, but no LoRA has role=content"),
        ("<lora:a:1:role=contnt>", "there is no role 'contnt'. Write role=content or role=style"),
        ("<lora:a:1:role=>", "there is no role ''. Write role=content or role=style"),
        ("<lora::1:role=content>", "it names no LoRA"),
        ("<lora:role=content>", "it names no LoRA"),
        ("<lora:a:1:1:8:role=content>", "a LoRA with a role cannot be cut to a smaller rank (dyn)"),
        ("<lora:a:1:dyn=8:role=content>", "a LoRA with a role cannot be cut to a smaller rank (dyn)"),
        ("<lora:a:1:role=content:mu=1><lora:b:1:role=style:mu=2>", "'mu=' has two values, 1 and 2"),
        ("<lora:a:1:role=content:role=style>", "'role=' is given twice"),
        ("<lora:a:1:role=content:c=1>", f"unknown key 'c'. Known: {KNOWN_WITH_A_ROLE}."),
        ("<lora:a:1:role=content:seed=1><lora:b:1:role=style:seed=2>", "'seed=' has two values, 1 and 2"),
        ("<lora:a:1:role=content:blocks=>", "'' is no exception by block: write it as block@value, such as mid@2"),
        (
            "<lora:a:1:role=content:blocks=0.5>",
            "'0.5' is no exception by block: write it as block@value, such as mid@2",
        ),
        ("<lora:a:1:role=content:blocks=mid@1,mid@1>", "block mid is given twice"),
        ("<lora:a:1:role=content:blocks=mid@x>", "weight=x is not a number."),
        ("<lora:a:1:role=content:blocks=mid@1:blocks=in@1>", "'blocks=' is given twice"),
        ("<lora:a:nan:role=content>", "te=nan is not a finite number"),
        ("<lora:a:1:inf:role=content>", "unet=inf is not a finite number"),
        (
            "<lora:a:1:role=content><lora:b:1:role=style:mu=-2>",
            "mu=-2 is negative: mu is a number from 0 up, or 'hard'",
        ),
    ],
)
def test_says_what_is_wrong_with_roles(text, message):
    with pytest.raises(RequestError) as caught:
        roles(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("items", "yes"),
    [
        (["a", "1", "role=content"], True),
        (["a", " Role = x"], True),
        (["role", "1"], False),
        (["a", "roles=content"], False),
        (["a", "x=role=content"], False),
        ([], False),
    ],
)
def test_has_role(items, yes):
    assert has_role(items) == yes


@given(
    st.lists(
        st.tuples(hostile_items, st.sampled_from([*(f"role={role}" for role in ROLES), "role=", "ROLE=x"])),
        min_size=1,
        max_size=4,
    )
)
def test_hostile_roles_end_in_a_request_or_its_error(hostile):
    with suppress(RequestError):
        check_sound(parse_roles([[*rest, role] for rest, role in hostile]))


def test_keys_of_other_extensions_are_left_to_them():
    text = "<lora:dog:0.8:role=content:LBW=1,0.5:start=3> <lora:ink:1:stop=5:role=style:mu=2:step=1-4>"
    assert roles(text) == roles("<lora:dog:0.8:role=content> <lora:ink:1:role=style:mu=2>")
    remarks = foreign_remarks([items for _, items in pieces(text)])
    reason = "has no effect: lora-block-weight does not reach a LoRA that is fused"
    assert remarks == [
        f"'lbw=' of 'dog' {reason}. Write blocks=in@0.6 for weights by block",
        f"'start=' of 'dog' {reason}",
        f"'stop=' of 'ink' {reason}",
        f"'step=' of 'ink' {reason}",
    ]
    assert foreign_remarks([["dog", "0.8", "role=content", "mu=1", "lbw"]]) == []
