import math
import re
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.errors import RequestError
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.methods.table import OPTIONS
from lib_nplora.request.request import (
    HARD,
    ROLES,
    TAG_KEYS,
    FusionRequest,
    Source,
    format_number,
    format_roles,
    format_tag,
    has_role,
    parse_number,
    parse_roles,
    parse_tag,
)

HOST_TAG = re.compile(r"<(\w+):([^>]+)>")
"""How the WebUIs find tags (modules/extra_networks.py, re_extra_net). They split what is inside at ':'."""

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
methods = st.sampled_from(["np", "direct", "k-lora", "other_1"])
none = st.none()
options = {
    "alpha": none | weights,
    "beta": none | weights,
    "scope": none | st.sampled_from(["attention", "all"]),
    "density": none | st.floats(0, 1, exclude_min=True),
    "seed": none | st.integers(0, 2**32 - 1),
}
in_one_tag = st.builds(
    FusionRequest,
    contents=st.builds(lambda name, w: (Source(name, w, w),), names, weights),
    styles=st.builds(lambda name, w: (Source(name, w, w),), names, weights),
    mu=mus,
    k=ks,
    method=methods,
    te=weights,
    unet=weights,
    **options,
)
sources = st.lists(st.builds(Source, names, weights, weights), min_size=1, max_size=3).map(tuple)
in_roles = st.builds(FusionRequest, contents=sources, styles=sources, mu=mus, k=ks, method=methods, **options)


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


@given(in_one_tag)
def test_a_tag_reads_back_through_the_host(request_):
    text = format_tag(request_)
    assert tag(text) == request_
    assert HOST_TAG.sub("", text) == ""


@given(in_roles)
def test_roles_read_back_through_the_host(request_):
    text = format_roles(request_)
    assert roles(text) == request_
    assert HOST_TAG.sub("", text).strip() == ""
    assert all(name == "lora" and has_role(items) for name, items in pieces(text))


@given(in_one_tag)
def test_roles_fold_the_multipliers_into_the_weights(request_):
    (content,), (style,) = (side for side in (roles(format_roles(request_)).contents, request_.styles))
    assert content.te == request_.contents[0].te * request_.te
    assert content.unet == request_.contents[0].unet * request_.unet
    assert style == request_.styles[0]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back(value):
    assert parse_number("c", format_number(value)) == value


def test_defaults_vanish():
    plain = FusionRequest((Source("dog"),), (Source("van gogh"),))
    assert format_tag(plain) == "<nplora:dog:van gogh:0.5>"
    assert format_roles(plain) == "<lora:dog:1:role=content> <lora:van gogh:1:role=style>"


def test_writes_every_option():
    full = FusionRequest(
        (Source("dog", 0.8, 0.8),),
        (Source("v.g (1), x", 1.2, 1.2),),
        HARD,
        RankRule(percent=90),
        "direct",
        te=0.0,
        unet=0.7,
        alpha=1.0,
        beta=-0.5,
        scope="all",
        density=0.2,
        seed=0,
    )
    text = (
        "<nplora:dog:v.g (1), x:hard:c=0.8:s=1.2:te=0:unet=0.7:k=90%:method=direct"
        ":alpha=1:beta=-0.5:scope=all:density=0.2:seed=0>"
    )
    assert format_tag(full) == text
    assert tag(text) == full


@pytest.mark.parametrize(
    "request_",
    [
        FusionRequest((Source("a"), Source("b")), (Source("c"),)),
        FusionRequest((Source("a"),), (Source("b"), Source("c"))),
        FusionRequest((Source("a", 1, 0.5),), (Source("b"),)),
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
        ("<nplora:a:b:scope=foo>", {"scope": "foo"}),
        ("<nplora:a:b:density=20%>", {"density": 0.2}),
        ("<nplora:a:b:density= 100 % >", {"density": 1.0}),
        ("<nplora:a:b:seed= 4294967295 >", {"seed": 2**32 - 1}),
    ],
)
def test_reads_a_tag(text, expected):
    assert tag(text) == FusionRequest((Source("a"),), (Source("b"),), **expected)


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
        ("a:-1e-05", Source("a", -1e-05, -1e-05)),
    ],
)
def test_role_weights_mean_what_they_mean_to_the_host(text, source):
    """extensions-builtin/Lora/extra_networks_lora.py: te, then unet, which follows te; named ones win."""
    assert roles(f"<lora:{text}:role=content><lora:b:role=style>").contents == (source,)


def test_shared_options_stand_in_any_role_tag():
    expected = FusionRequest((Source("a"),), (Source("b"),), 2.0, RankRule(count=4), "direct")
    assert roles("<lora:a:1:role=content:mu=2> <lora:b:1:role=style:k=4:method=direct>") == expected
    assert roles("<lora:b:1:ROLE= Style :k=4:mu=2> <lora:a:1:mu=2:role=content:method=direct>") == expected


def test_each_option_of_a_method_has_a_key():
    assert set(OPTIONS) <= set(TAG_KEYS)


def test_title():
    assert roles("<lora:a:role=content><lora:b:role=content><lora:c:role=style>").title == "a + b x c"


KNOWN_IN_A_TAG = "c, s, te, unet, mu, k, method, alpha, beta, scope, density, seed"
KNOWN_WITH_A_ROLE = "role, te, unet, dyn, mu, k, method, alpha, beta, scope, density, seed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<nplora: >", "it names no LoRA. Write <nplora:content:style>"),
        ("<nplora:mu=1>", "it names no LoRA. Write <nplora:content:style>"),
        ("<nplora::b>", "it names no LoRA. Write <nplora:content:style>"),
        ("<nplora:a>", "the style is missing. Write <nplora:a:style>"),
        ("<nplora:a:>", "the style is missing. Write <nplora:a:style>"),
        ("<nplora:a:c=1>", "the style is missing. Write <nplora:a:style>"),
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
        ("<nplora:a:b:seed=>", "seed= is not a whole number from 0 to 4294967295"),
    ],
)
def test_says_what_is_wrong_with_a_tag(text, message):
    with pytest.raises(RequestError) as caught:
        tag(text)
    assert str(caught.value).rstrip(".") == message.rstrip(".")


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


numberish = st.text("0123456789.,eE+-_%nainfhard ٣½\u2212\u00a0", max_size=12)
keys = st.sampled_from([*TAG_KEYS, "role", "dyn", "Mu", " k ", ""])
items = st.lists(
    st.one_of(
        st.text(max_size=20),
        numberish,
        st.builds("{}={}".format, keys, numberish),
        st.builds("{}={}".format, st.text(max_size=8), st.text(max_size=8)),
    ),
    max_size=7,
)


def _sound(request_: FusionRequest) -> None:
    assert request_.mu >= 0
    every = [*request_.contents, *request_.styles]
    assert all(source.name for source in every)
    values = [request_.te, request_.unet, *(weight for source in every for weight in (source.te, source.unet))]
    assert all(map(math.isfinite, values))


@given(st.one_of(items, items.map(lambda rest: ["a", "b", *rest])))
def test_hostile_tags_end_in_a_request_or_its_error(hostile):
    with suppress(RequestError):
        _sound(parse_tag(hostile))


@given(
    st.lists(
        st.tuples(items, st.sampled_from([*(f"role={role}" for role in ROLES), "role=", "ROLE=x"])),
        min_size=1,
        max_size=4,
    )
)
def test_hostile_roles_end_in_a_request_or_its_error(hostile):
    with suppress(RequestError):
        _sound(parse_roles([[*rest, role] for rest, role in hostile]))


@pytest.mark.parametrize("value", ["9" * 5000, "9" * 50_000 + "x", "1e" + "9" * 5000, "9" * 5000 + "%", "," * 50_000])
@pytest.mark.parametrize("key", sorted({*TAG_KEYS} - {"method", "scope"}))
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
