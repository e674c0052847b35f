"""The panel's values as arguments and as a request."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.errors import RequestError
from lib_nplora.layers.block import Block
from lib_nplora.layers.by_block import ByBlock
from lib_nplora.methods.parameter import Strength
from lib_nplora.methods.table import methods, parameters
from lib_nplora.methods.texts import HARD, format_number
from lib_nplora.request.tag import format_tag, parse_tag
from lib_nplora.webui.fields import POSITIONS, PanelState, by_block, fields

FULL = {
    **{"enabled": True, "content": "dog", "style": "vangogh", "mu": 0.25, "te": False, "k": "90%"},
    **{"content_weight": 0.9, "style_weight": 1.1},
}

numbers = st.floats(0, 10).map(lambda x: round(x, 3))
none = st.just("")
typed = {
    "alpha": none | numbers.map(format_number),
    "beta": none | numbers.map(format_number),
    "scope": none | st.sampled_from(["attention", "all"]),
    "density": none | st.floats(0.001, 1).map(format_number),
    "seed": none | st.integers(0, 2**32 - 1).map(str),
    "balance": st.sampled_from(["off", "layer", "down", "whole"]),
}
exceptions = st.lists(
    st.tuples(st.sampled_from(["te", "in", "in4", "mid", "single7", "out1"]), numbers.map(format_number)),
    unique_by=lambda pair: pair[0],
).map(lambda pairs: ",".join(f"{block}@{value}" for block, value in sorted(pairs, key=lambda p: Block.parse(p[0]))))
states = st.builds(
    PanelState.with_values,
    enabled=st.booleans(),
    content=st.sampled_from(["dog", "my dog v1.5"]),
    style=st.sampled_from(["vangogh", "ink, wash"]),
    mu=numbers,
    hard=st.booleans(),
    content_weight=numbers,
    style_weight=numbers,
    k=st.sampled_from(["all", "8", "90%"]),
    method=st.sampled_from([*methods()]),
    mu_by_block=exceptions,
    content_by_block=exceptions,
    style_by_block=exceptions,
    te=st.booleans(),
    **typed,
)


def test_the_order_of_the_arguments_only_grows():
    """Programs name them by position. A new one goes to the end, and into the list that keeps it there."""
    assert tuple(fields()) == POSITIONS
    assert POSITIONS == (
        "enabled",
        "content",
        "style",
        "mu",
        "hard",
        "content_weight",
        "style_weight",
        "k",
        "method",
        "te",
        "alpha",
        "beta",
        "scope",
        "density",
        "seed",
        "mu_by_block",
        "content_by_block",
        "style_by_block",
        "balance",
    )


def given_of(**values) -> dict:
    """What a panel with this pair and these values asks for beside the method's own."""
    return dict(PanelState.from_args([{**PAIR, **values}]).request().given)


@given(states)
def test_arguments_by_position_and_by_name_are_one(state):
    values = dict(state.held)
    assert PanelState.from_args(tuple(values.values())) == state
    assert PanelState.from_args([values]) == state
    assert PanelState.from_args([values, *list(fields().values())[1:]]) == state


def test_names_switch_the_panel_on_and_leave_the_rest():
    defaults = [False, "", "", 2.0, False, 1, 1, "8", "np", True]
    named = {"content": "dog", "style": "vangogh"}
    read = PanelState.from_args([named, *defaults[1:]])
    assert read == PanelState.with_values(enabled=True, content="dog", style="vangogh", mu=2.0, k="8")
    assert not PanelState.from_args([{**named, "enabled": False}])["enabled"]


def test_what_a_gradio_page_sends_is_read():
    assert PanelState.from_args([True, "dog", "vangogh", 1, False, 1, 0, 8, "np", True]) == PanelState.with_values(
        enabled=True, content="dog", style="vangogh", mu=1.0, style_weight=0.0, k="8"
    )
    assert PanelState.from_args([True, None, None, None]) == PanelState.with_values(enabled=True)


def test_the_fifteen_arguments_of_older_programs_are_read():
    older = [True, "dog", "vangogh", 0.25, False, 0.9, 1.1, "90%", "klora*", False, "2", "0.30", "all", "x", "7"]
    expected = PanelState.with_values(
        **FULL, method="klora*", alpha="2", beta="0.30", scope="all", density="x", seed="7"
    )
    assert PanelState.from_args(older) == expected
    assert PanelState.from_args(older[:10])["method"] == "klora*"
    assert dict(PanelState.from_args([True, "a", "b", 2, False, 1, 1, "8"]).request().given) == {
        "mu": ByBlock(2.0),
        "k": parameters()["k"].parse("8"),
    }


def test_a_named_mu_overrides_a_panel_that_starts_hard():
    hard = [False, "", "", 0.5, True]
    assert not PanelState.from_args([{"content": "a", "style": "b", "mu": 1}, *hard[1:]])["hard"]
    assert PanelState.from_args([{"content": "a", "style": "b"}, *hard[1:]])["hard"]


def test_null_leaves_a_value_as_it_is():
    read = PanelState.from_args([{"content": "a", "style": None, "k": None}, "", "ink"])
    assert read == PanelState.with_values(enabled=True, content="a", style="ink")


def test_what_is_off_need_not_be_readable():
    assert not PanelState.is_on([False, "", "", "0,5"])
    assert PanelState.is_on([True, "", "", "0,5"])
    assert PanelState.is_on([{"content": "a"}])


def test_a_list_switches_no_panel_on():
    with pytest.raises(RequestError, match="enabled is a list, where one value belongs"):
        PanelState.is_on([[None]])
    assert not PanelState.is_on([False, ["dog"]])


def test_mu_may_be_hard():
    assert given_of(mu="hard") == {"mu": ByBlock(HARD)}
    assert dict(PanelState.from_args([True, "a", "b", "0.3"]).request().given) == {"mu": ByBlock(0.3)}


def test_exceptions_by_block_stand_in_the_strength_or_beside_it():
    expected = {"mu": ByBlock(0.3, ((Block("mid"), 2.0), (Block("out"), HARD)))}
    assert given_of(mu="0.3,mid@2,out@hard") == expected
    assert given_of(mu=0.3, mu_by_block="out@hard, mid@2") == expected
    assert given_of(mu="mid@2") == {"mu": ByBlock(0.5, ((Block("mid"), 2.0),))}
    weights = PanelState.from_args([{**PAIR, "content_weight": "0.8,in@0.6", "style_by_block": "out1@0"}]).request()
    (content,), (style,) = weights.contents, weights.styles
    assert (content.unet, content.exceptions) == (0.8, ((Block("in"), 0.6),))
    assert (style.unet, style.exceptions) == (1.0, ((Block("out", 1), 0.0),))
    assert given_of(method="direct", mu_by_block="no sense") == {}


PAIR = {"content": "a", "style": "b"}


def test_numbers_are_read_as_they_would_be_typed():
    assert given_of(method="klora", alpha=2, beta=0.25, scope="All") == {"alpha": 2.0, "beta": 0.25, "scope": "all"}
    assert given_of(method="DARE", density="20%", seed=3.0) == {"density": 0.2, "seed": 3}
    request = PanelState.from_args([True, "a", "b", *[None] * 5, "ties", None, "", "", "", 0.3]).request()
    assert dict(request.given) == {"density": 0.3}


def test_nothing_is_the_methods_own():
    assert given_of(method="klora", alpha="", beta=" ", scope=None) == {}


def test_what_the_method_does_not_read_is_told_of_what_is_given_by_name():
    named = {**PAIR, "method": "KLoRA", "mu": 0.5, "hard": False, "beta": 1, "density": "", "k": None}
    assert PanelState.unread([named]) == ["mu", "hard"]
    assert PanelState.unread([True, "a", "b", 2, False, 1, 1, "8", "klora"]) == []


@pytest.mark.parametrize("method", methods().values(), ids=str)
def test_only_what_the_method_reads_is_asked_for(method):
    """What is left in a hidden box has no effect, even if it makes no sense."""
    sense = {"alpha": "2", "beta": "3", "scope": "all", "density": "0.3", "seed": "4"}
    typed = {name: text if method.parameter(name) else "no sense" for name, text in sense.items()}
    given = given_of(method=method.name, **typed)
    own = {one.name: one for one in method.parameters if one.name in sense}
    assert given == {name: one.read(sense[name]) for name, one in own.items() if one.read(sense[name]) != one.default}


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ([{"contnet": "dog"}], "the panel has no 'contnet'. Did you mean 'content'?"),
        ([True, "dog", "vangogh", "lots"], "mu=lots is not a number: mu is a number from 0 up, or 'hard'"),
        ([True, "dog", "vangogh", -1], "mu=-1 is negative: mu is a number from 0 up, or 'hard'"),
        ([{"te": 0.5}], "te=0.5 is neither true nor false"),
        ([{"te": [True]}], "te is a list, where one value belongs"),
        ([True, "dog", "vangogh", [None]], "mu is a list, where one value belongs"),
        ([{**PAIR, "mu_by_block": ["mid@2"]}], "mu_by_block is a list, where one value belongs"),
        ([{"content_weight": "1,5"}], "content_weight=1,5 is not a number. Write 1.5."),
        ([True, "dog"], "choose a content LoRA and a style LoRA"),
        ([True, "do:g", "vangogh"], "the content 'do:g' has ':' in its name, which no tag can hold: rename the file"),
        ([True, "dog", "van=gogh"], "the style 'van=gogh' has '=' in its name, which no tag can hold: rename the file"),
        ([{"content": "a", "style": "b", "k": "some"}], "k=some is not 'all', a whole number or a share such as 90%"),
        ([{**PAIR, "method": "klora", "alpha": "x"}], "alpha=x is not a number."),
        ([{**PAIR, "method": "klora", "beta": "0,5"}], "beta=0,5 is not a number. Write 0.5."),
        ([{**PAIR, "method": "klora", "beta": float("inf")}], "beta=inf is not a finite number"),
        (
            [{**PAIR, "method": "ties", "density": 0}],
            "density=0 is not a share: it is above 0 and at most 1, or at most 100%",
        ),
        ([{**PAIR, "method": "dare", "seed": 1.5}], "seed=1.5 is not a whole number from 0 to 4294967295"),
        ([{**PAIR, "method": "dare", "seed": "-1"}], "seed=-1 is not a whole number from 0 to 4294967295"),
        (
            [{**PAIR, "mu_by_block": "middle@2"}],
            "there is no block 'middle'. Did you mean 'mid'? Blocks are te, in, mid, double, single and out, "
            "each also with a number: out1.",
        ),
        ([{**PAIR, "mu_by_block": "mid"}], "'mid' is no exception by block: write it as block@value, such as mid@2"),
        ([{**PAIR, "content_by_block": "in@hard"}], "content_weight=hard is not a number."),
        ([{**PAIR, "method": "klor"}], "there is no method 'klor'. Did you mean 'klora'?"),
    ],
)
def test_what_cannot_be_read_is_refused(args, reason):
    with pytest.raises(RequestError) as error:
        PanelState.from_args(args).request()
    assert str(error.value) == reason


@given(states)
def test_the_tag_says_all_that_counts(state):
    tag = format_tag(state.request())
    again = PanelState.of(parse_tag(tag[1:-1].split(":")[1:]), state["enabled"])
    assert again.request() == state.request()
    unread = set(itertools.chain.from_iterable(values_of(one) for one in parameters().values()))
    unread -= set(itertools.chain.from_iterable(values_of(one) for one in methods()[state["method"]].parameters))
    expected = {name: value for name, value in state.held.items() if name not in unread}
    if state["hard"]:
        expected |= {"mu": fields()["mu"]}
    assert same_but_for_spelling(again, PanelState.with_values(**expected))


def values_of(parameter) -> list[str]:
    """The panel's values for a parameter."""
    hard = [parameter.widget.hard] if isinstance(parameter.widget, Strength) else []
    return [parameter.name, *hard, *([by_block(parameter.name)] if parameter.by_block else [])]


def same_but_for_spelling(one: PanelState, other: PanelState) -> bool:
    """Empty boxes stand for the method's own value, which may be written in them, too."""
    method = methods()[one["method"]]
    own = {parameter.name: parameter.write(parameter.default) for parameter in method.parameters}
    return all(one[name] == other[name] or {one[name], other[name]} == {"", own.get(name)} for name in fields())


def test_a_full_panel_is_this_tag():
    def tag(**values) -> str:
        return format_tag(PanelState.with_values(**{**FULL, **values}).request())

    assert tag() == "<nplora:dog:vangogh:0.25:c=0.9:s=1.1:te=0:k=90%>"
    assert tag(mu_by_block="out@hard,mid@2", content_by_block="in@0.6", style_by_block="out1@0") == (
        "<nplora:dog:vangogh:0.25,mid@2,out@hard:c=0.9,in@0.6:s=1.1,out1@0:te=0:k=90%>"
    )
    klora = tag(method="klora*", alpha="2", beta="0.30", scope="all", density="x", seed="7")
    assert klora == "<nplora:dog:vangogh:c=0.9:s=1.1:te=0:method=klora*:alpha=2:beta=0.3:scope=all>"
    assert tag(method="direct") == "<nplora:dog:vangogh:c=0.9:s=1.1:te=0:method=direct>"
