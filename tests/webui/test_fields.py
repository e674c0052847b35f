"""The panel's values as arguments and as a request."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.errors import RequestError
from lib_nplora.request import HARD, format_tag, parse_tag
from lib_nplora.webui.fields import NAMES, PanelState

FULL = PanelState(True, "dog", "vangogh", 0.25, False, 0.9, 1.1, "90%", "direct", False)

numbers = st.floats(0, 10).map(lambda x: round(x, 3))
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
    method=st.sampled_from(["np", "direct"]),
    te=st.booleans(),
)


def test_the_order_of_the_arguments_only_grows():
    """Programs name them by position. A new one goes to the end."""
    assert NAMES[:10] == (
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
    assert again == dataclasses.replace(state, mu=PanelState.mu if state.hard else state.mu)


def test_a_full_panel_is_this_tag():
    assert format_tag(FULL.request()) == "<nplora:dog:vangogh:0.25:c=0.9:s=1.1:te=0:k=90%:method=direct>"
