"""The panel's values as arguments and as a request."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.errors import RequestError
from lib_nplora.methods.table import METHODS, OPTIONS
from lib_nplora.request.request import HARD, format_number, format_tag, parse_tag
from lib_nplora.webui.fields import NAMES, PARSERS, PanelState

FULL = PanelState(True, "dog", "vangogh", 0.25, False, 0.9, 1.1, "90%", "direct", False)

numbers = st.floats(0, 10).map(lambda x: round(x, 3))
none = st.just("")
typed = {
    "alpha": none | numbers.map(format_number),
    "beta": none | numbers.map(format_number),
    "scope": none | st.sampled_from(["attention", "all"]),
    "density": none | st.floats(0.001, 1).map(format_number),
    "seed": none | st.integers(0, 2**32 - 1).map(str),
}
states = st.builds(
    PanelState,
    enabled=st.booleans(),
    content=st.sampled_from(["dog", "my dog v1.5"]),
    style=st.sampled_from(["vangogh", "ink, wash"]),
    mu=numbers,
    hard=st.booleans(),
    content_weight=numbers,
    style_weight=numbers,
    k=st.sampled_from(["all", "8", "90%"]),
    method=st.sampled_from([*METHODS]),
    te=st.booleans(),
    **typed,
)


def test_the_order_of_the_arguments_only_grows():
    """Programs name them by position. A new one goes to the end."""
    assert NAMES == (
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
    )


@given(states)
def test_arguments_by_position_and_by_name_are_one(state):
    values = dataclasses.asdict(state)
    assert PanelState.from_args(tuple(values.values())) == state
    assert PanelState.from_args([values]) == state
    defaults = [*dataclasses.asdict(PanelState()).values()][1:]
    assert PanelState.from_args([values, *defaults]) == state


def test_names_switch_the_panel_on_and_leave_the_rest():
    defaults = [False, "", "", 2.0, False, 1, 1, "8", "np", True]
    named = {"content": "dog", "style": "vangogh"}
    read = PanelState.from_args([named, *defaults[1:]])
    assert read == PanelState(True, "dog", "vangogh", 2.0, k="8")
    assert not PanelState.from_args([{**named, "enabled": False}]).enabled


def test_what_a_gradio_page_sends_is_read():
    assert PanelState.from_args([True, "dog", "vangogh", 1, False, 1, 0, 8, "np", True]) == PanelState(
        True, "dog", "vangogh", 1.0, style_weight=0.0, k="8"
    )
    assert PanelState.from_args([True, None, None, None]) == PanelState(True)


def test_a_named_mu_overrides_a_panel_that_starts_hard():
    hard = [False, "", "", 0.5, True]
    assert not PanelState.from_args([{"content": "a", "style": "b", "mu": 1}, *hard[1:]]).hard
    assert PanelState.from_args([{"content": "a", "style": "b"}, *hard[1:]]).hard


def test_null_leaves_a_value_as_it_is():
    assert PanelState.from_args([{"content": "a", "style": None, "k": None}, "", "ink"]) == PanelState(True, "a", "ink")


def test_what_is_off_need_not_be_readable():
    assert not PanelState.is_on([False, "", "", "0,5"])
    assert PanelState.is_on([True, "", "", "0,5"])
    assert PanelState.is_on([{"content": "a"}])


def test_mu_may_be_hard():
    assert PanelState.from_args([{"content": "a", "style": "b", "mu": "hard"}]).request().mu == HARD
    assert PanelState.from_args([True, "a", "b", "0.3"]).request().mu == 0.3


PAIR = {"content": "a", "style": "b"}


def test_numbers_are_read_as_they_would_be_typed():
    request = PanelState.from_args([{**PAIR, "method": "klora", "alpha": 2, "beta": 0.25, "scope": "All"}]).request()
    assert (request.alpha, request.beta, request.scope) == (2.0, 0.25, "all")
    request = PanelState.from_args([{**PAIR, "method": "DARE", "density": "20%", "seed": 3.0}]).request()
    assert (request.method, request.density, request.seed) == ("dare", 0.2, 3)
    request = PanelState.from_args([True, "a", "b", *[None] * 5, "ties", None, "", "", "", 0.3]).request()
    assert request.density == 0.3


def test_nothing_is_the_methods_own():
    request = PanelState.from_args([{**PAIR, "method": "klora", "alpha": "", "beta": " ", "scope": None}]).request()
    assert (request.alpha, request.beta, request.scope) == (None, None, None)


@pytest.mark.parametrize("method", METHODS)
def test_only_what_the_method_reads_is_asked_for(method):
    """What is left in a hidden box has no effect, even if it makes no sense."""
    sense = {"alpha": "2", "beta": "3", "scope": "all", "density": "0.3", "seed": "4"}
    typed = {name: text if name in METHODS[method].reads else "no sense" for name, text in sense.items()}
    request = PanelState.from_args([{**PAIR, "method": method, **typed}]).request()
    given = {name for name in OPTIONS if getattr(request, name) is not None}
    assert given == set(OPTIONS) & set(METHODS[method].reads)
    assert all(getattr(request, name) == PARSERS[name](sense[name]) for name in given)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ([{"contnet": "dog"}], "the panel has no 'contnet'. Did you mean 'content'?"),
        ([True, "dog", "vangogh", "lots"], "mu=lots is not a number: mu is a number from 0 up, or 'hard'"),
        ([True, "dog", "vangogh", -1], "mu=-1 is negative: mu is a number from 0 up, or 'hard'"),
        ([{"te": 0.5}], "te=0.5 is neither true nor false"),
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
    again = PanelState.of(parse_tag(tag[1:-1].split(":")[1:]), state.enabled)
    assert again.request() == state.request()
    unread = {name: "" for name in OPTIONS if name not in METHODS[state.method].reads}
    assert again == dataclasses.replace(state, mu=PanelState.mu if state.hard else state.mu, **unread)


def test_a_full_panel_is_this_tag():
    assert format_tag(FULL.request()) == "<nplora:dog:vangogh:0.25:c=0.9:s=1.1:te=0:k=90%:method=direct>"
    chosen = dataclasses.replace(FULL, method="klora*", alpha="2", beta="0.30", scope="all", density="x", seed="7")
    expected = "<nplora:dog:vangogh:0.25:c=0.9:s=1.1:te=0:k=90%:method=klora*:alpha=2:beta=0.3:scope=all>"
    assert format_tag(chosen.request()) == expected
