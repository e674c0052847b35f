"""A fusion as one tag, through the host's eyes."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_nplora.errors import RequestError
from lib_nplora.layers.block import Block
from lib_nplora.layers.by_block import ByBlock
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.methods.table import methods, parameters
from lib_nplora.methods.texts import HARD
from lib_nplora.request.request import FusionRequest, Source
from lib_nplora.request.roles import format_roles
from lib_nplora.request.tag import check_name, format_tag, parse_tag, tag_keys

from . import asked
from .asked import HOST_TAG, check_sound, hostile_items, in_one_tag, roles, tag

MID, OUT1 = Block("mid"), Block("out", 1)


def pair(**given) -> FusionRequest:
    return FusionRequest.of((Source("a"),), (Source("b"),), **given)


@given(in_one_tag)
def test_a_tag_reads_back_through_the_host(request_):
    text = format_tag(request_)
    assert tag(text) == request_
    assert HOST_TAG.sub("", text) == ""


@pytest.mark.parametrize("parameter", parameters())
@pytest.mark.parametrize("name", methods())
@settings(max_examples=10)
@given(data=st.data())
def test_every_parameter_reads_back_with_every_method(name, parameter, data):
    """Read or not, in one tag and in roles."""
    request = pair(method=name, **{parameter: data.draw(asked.given[parameter])})
    assert tag(format_tag(request)) == request
    assert roles(format_roles(request)) == request


def test_there_are_values_of_every_parameter_to_draw():
    assert set(asked.given) == set(parameters())


def test_defaults_vanish():
    plain = FusionRequest.of((Source("dog"),), (Source("van gogh"),))
    assert format_tag(plain) == "<nplora:dog:van gogh:0.5>"


def test_only_methods_that_read_mu_are_written_with_it():
    for name, method in methods().items():
        text = format_tag(pair(method=name))
        expected = ("a:b:0.5" if method.parameter("mu") else "a:b") + ("" if name == "np" else f":method={name}")
        assert text == f"<nplora:{expected}>"
    assert format_tag(pair(method="klora", mu=2.0)) == "<nplora:a:b:mu=2:method=klora>"


@pytest.mark.parametrize("name", methods())
def test_a_default_vanishes_and_another_method_s_does_not(name):
    method = methods()[name]
    for parameter in method.parameters:
        assert format_tag(pair(method=name, **{parameter.name: parameter.default})) == format_tag(pair(method=name))
    assert format_tag(pair(method="klora", beta=1.3)) == "<nplora:a:b:method=klora:beta=1.3>"
    assert format_tag(pair(method="klora*", beta=0.5)) == "<nplora:a:b:method=klora*:beta=0.5>"


def test_writes_every_option():
    full = FusionRequest.of(
        (Source("dog", 0.8, 0.8),),
        (Source("v.g (1), x", 1.2, 1.2),),
        "direct",
        mu=HARD,
        k=RankRule(percent=90),
        te=0.0,
        unet=0.7,
        alpha=1.0,
        beta=-0.5,
        scope="all",
        density=0.3,
        seed=7,
    )
    text = (
        "<nplora:dog:v.g (1), x:c=0.8:s=1.2:te=0:unet=0.7:mu=hard:k=90%:method=direct"
        ":alpha=1:beta=-0.5:scope=all:density=0.3:seed=7>"
    )
    assert format_tag(full) == text
    assert tag(text) == full
    assert format_tag(full.with_method("np")) == "<nplora:dog:v.g (1), x:hard:c=0.8:s=1.2:te=0:unet=0.7:k=90%>"


def test_writes_exceptions_by_block():
    out, mid = Block("out", 1), Block("mid")
    request = FusionRequest.of(
        (Source("dog", 0.8, 0.8, ((mid, 0.0),)),),
        (Source("van gogh", exceptions=((Block("te", 1), 0.5), (out, -1.0))),),
        mu=ByBlock(0.5, ((mid, 2.0), (out, HARD))),
    )
    text = "<nplora:dog:van gogh:0.5,mid@2,out1@hard:c=0.8,mid@0:s=1,te1@0.5,out1@-1>"
    assert format_tag(request) == text
    assert tag(text) == request


@pytest.mark.parametrize(
    "request_",
    [
        FusionRequest.of((Source("a"), Source("b")), (Source("c"),)),
        FusionRequest.of((Source("a"),), (Source("b"), Source("c"))),
        FusionRequest.of((Source("a", 1, 0.5),), (Source("b"),)),
        FusionRequest.of((Source("a", 1, 0.5, ((Block("mid"), 2.0),)),), (Source("b"),)),
    ],
)
def test_what_fits_no_tag_is_not_written_as_one(request_):
    with pytest.raises(ValueError, match="only one content and one style"):
        format_tag(request_)
    assert roles(format_roles(request_)) == request_


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<nplora:a:b>", {}),
        ("<nplora: a : b >", {}),
        ("<nplora:a:b:0>", {"mu": 0.0}),
        ("<nplora:a:b: Hard >", {"mu": HARD}),
        ("<nplora:a:b:MU=2>", {"mu": 2.0}),
        ("<nplora:mu=2:a:b>", {"mu": 2.0}),
        ("<nplora:a:b: k = 8 :Method= NP >", {"k": RankRule(count=8)}),
        ("<nplora:a:b:te=0:unet=-1e0>", {"te": 0.0, "unet": -1.0}),
        ("<nplora:a:b:ALPHA= 2 :beta=0>", {"alpha": 2.0, "beta": 0.0}),
        ("<nplora:a:b:scope= All >", {"scope": "all"}),
        ("<nplora:a:b:method= KLoRA >", {"method": "klora"}),
        ("<nplora:a:b:method=klora:beta=0.5>", {"method": "klora"}),
        ("<nplora:a:b:mu=2:method=klora>", {"method": "klora", "mu": 2.0}),
        ("<nplora:a:b:2:method=klora>", {"method": "klora", "mu": 2.0}),
        ("<nplora:a:b: 0.7 , OUT01@Hard , mid @ 2>", {"mu": ByBlock(0.7, ((MID, 2.0), (OUT1, HARD)))}),
        ("<nplora:a:b:mid@2>", {"mu": ByBlock(0.5, ((MID, 2.0),))}),
        ("<nplora:a:b:method=direct:mu=mid@2>", {"method": "direct", "mu": ByBlock(0.5, ((MID, 2.0),))}),
        ("<nplora:a:b:mid@0.5>", {"mu": ByBlock(0.5, ((MID, 0.5),))}),
        ("<nplora:a:b:density=20%>", {"density": 0.2}),
        ("<nplora:a:b:density= 100 % >", {"density": 1.0}),
        ("<nplora:a:b:seed= 4294967295 >", {"seed": 2**32 - 1}),
    ],
)
def test_reads_a_tag(text, expected):
    assert tag(text) == pair(**expected)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("c=0.8", Source("a", 0.8, 0.8)),
        ("c=0.8,mid@2", Source("a", 0.8, 0.8, ((MID, 2.0),))),
        ("c=out1@-1, mid@0", Source("a", exceptions=((MID, 0.0), (OUT1, -1.0)))),
    ],
)
def test_reads_weights(text, source):
    assert tag(f"<nplora:a:b:{text}>").contents == (source,)
    assert tag(f"<nplora:b:a:{text.replace('c=', 's=')}>").styles == (source,)


def test_each_parameter_has_a_key():
    assert set(parameters()) <= set(tag_keys())
    assert len(set(tag_keys())) == len(tag_keys())


@pytest.mark.parametrize("sign", ":<>=")
def test_a_name_that_no_tag_can_hold_is_refused(sign):
    check_name("content", "v.g (1), x@y")
    with pytest.raises(RequestError, match=rf"the style 'a{sign}b' has '{sign}' in its name, .*: rename the file"):
        check_name("style", f"a{sign}b")


KNOWN_IN_A_TAG = "c, s, te, unet, mu, k, balance, method, alpha, beta, scope, density, seed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<nplora: >", "it names no LoRA. Write <nplora:content:style>"),
        ("<nplora:mu=1>", "it names no LoRA. Write <nplora:content:style>"),
        ("<nplora::b>", "it names no LoRA. Write <nplora:content:style>"),
        ("<nplora:a>", "the style is missing. Write <nplora:a:style>"),
        ("<nplora:a:>", "the style is missing. Write <nplora:a:style>"),
        ("<nplora:a:c=1>", "the style is missing. Write <nplora:a:style>"),
        ("<nplora:a:b, c <lora:d:1>", "it has no '>' before '<lora'"),
        ("<nplora:a:b:1:2>", "'2' is one value too many. Write <nplora:content:style:mu:key=value>"),
        ("<nplora:a:b:-1>", "mu=-1 is negative: mu is a number from 0 up, or 'hard'"),
        ("<nplora:a:b:>", "mu= is not a number: mu is a number from 0 up, or 'hard'"),
        ("<nplora:a:b:soft>", "mu=soft is not a number: mu is a number from 0 up, or 'hard'"),
        ("<nplora:a:b:nan>", "mu=nan is not a finite number: mu is a number from 0 up, or 'hard'"),
        ("<nplora:a:b:inf>", "mu=inf is not a finite number: mu is a number from 0 up, or 'hard'"),
        ("<nplora:a:b:1e999>", "mu=1e999 is not a finite number: mu is a number from 0 up, or 'hard'"),
        ("<nplora:a:b:0,5>", "mu=0,5 is not a number. Write 0.5: mu is a number from 0 up, or 'hard'"),
        ("<nplora:a:b:1:mu=1>", "mu is given twice"),
        ("<nplora:a:b:c=1:C=1>", "'c=' is given twice"),
        ("<nplora:a:b:c=0,8>", "c=0,8 is not a number. Write 0.8."),
        ("<nplora:a:b:c=x,y>", "c=x,y is not a number."),
        ("<nplora:a:b:c=>", "c= is not a number."),
        ("<nplora:a:b:s=nan>", "s=nan is not a finite number"),
        ("<nplora:a:b:te=inf>", "te=inf is not a finite number"),
        ("<nplora:a:b:unet=-inf>", "unet=-inf is not a finite number"),
        ("<nplora:a:b:k=0>", "k=0 is less than 1. Use method=direct to project nothing"),
        ("<nplora:a:b:k=-1>", "k=-1 is not 'all', a whole number or a share such as 90%"),
        ("<nplora:a:b:k=101%>", "k=101% is not a share between 0% and 100%"),
        ("<nplora:a:b:methd=np>", "unknown key 'methd'. Did you mean 'method'?"),
        ("<nplora:a:b:zzz=1>", f"unknown key 'zzz'. Known: {KNOWN_IN_A_TAG}."),
        ("<nplora:a:b:lbw=1,0>", "'lbw=' is lora-block-weight's and works on <lora:...> tags alone: leave it out here"),
        (
            "<nplora:a:b:step=5-9>",
            "'step=' is lora-block-weight's and works on <lora:...> tags alone: leave it out here",
        ),
        ("<nplora:a:b:=1>", f"unknown key ''. Known: {KNOWN_IN_A_TAG}."),
        ("<nplora:a:b:alpha=x>", "alpha=x is not a number."),
        ("<nplora:a:b:beta=1,5>", "beta=1,5 is not a number. Write 1.5."),
        ("<nplora:a:b:alpha=inf>", "alpha=inf is not a finite number"),
        ("<nplora:a:b:density=0>", "density=0 is not a share: it is above 0 and at most 1, or at most 100%"),
        ("<nplora:a:b:density=-20%>", "density=-20% is not a share: it is above 0 and at most 1, or at most 100%"),
        ("<nplora:a:b:density=150%>", "density=150% is not a share: it is above 0 and at most 1, or at most 100%"),
        ("<nplora:a:b:density=20>", "density=20 is not a share: it is above 0 and at most 1, or at most 100%"),
        ("<nplora:a:b:density=%>", "density=% is not a number."),
        ("<nplora:a:b:seed=-1>", "seed=-1 is not a whole number from 0 to 4294967295"),
        ("<nplora:a:b:seed=1.5>", "seed=1.5 is not a whole number from 0 to 4294967295"),
        ("<nplora:a:b:seed=4294967296>", "seed=4294967296 is not a whole number from 0 to 4294967295"),
        ("<nplora:a:b:scope=foo>", "there is no scope 'foo'. Known: attention, all."),
        ("<nplora:a:b:scope=atention>", "there is no scope 'atention'. Did you mean 'attention'?"),
        ("<nplora:a:b:method=dircet>", "there is no method 'dircet'. Did you mean 'direct'?"),
        ("<nplora:a:b:method=>", f"there is no method ''. Known: {', '.join(methods())}."),
        ("<nplora:a:b:1,mid@-1>", "mu=-1 is negative: mu is a number from 0 up, or 'hard'"),
        ("<nplora:a:b:1,mid@x>", "mu=x is not a number: mu is a number from 0 up, or 'hard'"),
        ("<nplora:a:b:x,mid@1>", "mu=x is not a number: mu is a number from 0 up, or 'hard'"),
        (
            "<nplora:a:b:1,2,mid@1>",
            "'2' is no exception by block: write it as block@value, such as mid@2, decimals with a point: 0.2",
        ),
        ("<nplora:a:b:1,mid@>", "'mid@' is no exception by block: write it as block@value, such as mid@2"),
        ("<nplora:a:b:1,@1>", "'@1' is no exception by block: write it as block@value, such as mid@2"),
        ("<nplora:a:b:1,mid@1,>", "'' is no exception by block: write it as block@value, such as mid@2"),
        ("<nplora:a:b:1,out1@1,OUT01@2>", "block out1 is given twice"),
        ("<nplora:a:b:c=1,mid@inf>", "c=inf is not a finite number"),
        (
            "<nplora:a:b:c=1,duoble7@1>",
            "there is no block 'duoble7'. Did you mean 'double7'? Blocks are te, in, mid, double, single and out, "
            "each also with a number: out1.",
        ),
        ("<nplora:a:b:seed=>", "seed= is not a whole number from 0 to 4294967295"),
    ],
)
def test_says_what_is_wrong_with_a_tag(text, message):
    with pytest.raises(RequestError) as caught:
        tag(text)
    assert str(caught.value).rstrip(".") == message.rstrip(".")


@given(st.one_of(hostile_items, hostile_items.map(lambda rest: ["a", "b", *rest])))
def test_hostile_tags_end_in_a_request_or_its_error(hostile):
    with suppress(RequestError):
        check_sound(parse_tag(hostile))


ENDLESS = [
    *("9" * 5000, "9" * 50_000 + "x", "1e" + "9" * 5000, "9" * 5000 + "%", "," * 50_000),
    *("x" * 50_000 + "@1", "@" * 50_000, "in" + "9" * 50_000 + "@1", "1," + "mid@1," * 10_000),
]


@pytest.mark.parametrize("value", ENDLESS, ids=lambda value: value[:8])
@pytest.mark.parametrize("key", tag_keys())
def test_endless_values_take_no_time(key, value):
    start = time.perf_counter()
    with pytest.raises(RequestError):
        parse_tag(["a", "b", f"{key}={value}"])
    assert time.perf_counter() - start < 5


def test_endless_keys_take_no_time():
    start = time.perf_counter()
    with pytest.raises(RequestError, match="unknown key"):
        parse_tag(["a", "b", "x" * 50_000 + "=1"])
    assert time.perf_counter() - start < 5
