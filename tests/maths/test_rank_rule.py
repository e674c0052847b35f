import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.errors import RequestError
from lib_nplora.maths.rank_rule import NUMERICAL_RANK, RankRule

from .. import reference

spectra = st.lists(st.floats(1e-9, 1e9), min_size=0, max_size=40).map(lambda s: sorted(s, reverse=True))
rules = st.one_of(
    st.just(RankRule()),
    st.builds(RankRule, count=st.integers(1, 10**6)),
    st.builds(RankRule, percent=st.floats(0, 100, exclude_min=True)),
)


@given(rules)
def test_reads_back_what_it_writes(rule):
    assert RankRule.parse(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("all", RankRule()),
        (" ALL ", RankRule()),
        ("8", RankRule(count=8)),
        ("008", RankRule(count=8)),
        ("90%", RankRule(percent=90)),
        ("99.5 %", RankRule(percent=99.5)),
        (".5%", RankRule(percent=0.5)),
        ("1e-3%", RankRule(percent=0.001)),
        ("0.9", RankRule(percent=90)),
        (".995", RankRule(percent=99.5)),
        ("0.07", RankRule(percent=7)),
    ],
)
def test_reads(text, rule):
    assert RankRule.parse(text) == rule


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "0",
        "-1",
        "+1",
        "1.5",
        "1.0",
        "0.0",
        "0%",
        "-5%",
        "101%",
        "nan%",
        "inf%",
        "1e999%",
        "%",
        "al",
        "8 9",
        "٣",
        "٣%",
        "½",
        "8\n9",
    ],
)
def test_refuses(text):
    with pytest.raises(RequestError, match=r"^k="):
        RankRule.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "9" * 10,
        "9" * 5000,
        "0" * 5000 + "1",
        "9" * 5000 + "%",
        "9" * 50_000 + "x",
        "1e" + "9" * 5000 + "%",
        "0." + "9" * 5000,
    ],
)
def test_refuses_endless_numbers(text):
    """int() of more than 4300 digits raises ValueError, and a careless pattern takes minutes over 50,000."""
    with pytest.raises(RequestError, match=r"^k="):
        RankRule.parse(text)


def test_is_one_thing():
    with pytest.raises(RequestError, match="either a number or a share"):
        RankRule(count=1, percent=1)


@given(rules, spectra)
def test_cut_is_between_one_and_the_numerical_rank(rule, s):
    k = rule.rank(s)
    assert (k == 0) == (not s)
    assert k <= RankRule().rank(s) <= len(s)


@given(st.integers(1, 50), spectra)
def test_a_larger_count_keeps_no_less(count, s):
    assert RankRule(count=count).rank(s) <= RankRule(count=count + 1).rank(s)


@given(st.floats(1, 99), st.floats(0, 1), spectra)
def test_a_larger_share_keeps_no_less(percent, more, s):
    assert RankRule(percent=percent).rank(s) <= RankRule(percent=percent + more).rank(s)


@given(spectra, st.integers(-20, 20))
def test_scale_changes_nothing(s, exponent):
    for rule in (RankRule(), RankRule(count=3), RankRule(percent=90)):
        assert rule.rank([value * 2.0**exponent for value in s]) == rule.rank(s)


@given(st.one_of(st.just("all"), st.integers(1, 50).map(str)), spectra)
def test_agrees_with_the_reference(k, s):
    assert RankRule.parse(k).rank(s) == reference.cut(np.array(s), k)


def test_noise_is_no_direction():
    assert RankRule().rank([1.0, 2 * NUMERICAL_RANK, NUMERICAL_RANK, 0.0]) == 2
    assert RankRule(count=4).rank([1.0, 2 * NUMERICAL_RANK, NUMERICAL_RANK, 0.0]) == 2
    assert RankRule(percent=100).rank([1.0, 0.5, 1e-9]) == 2


def test_nothing_to_cut():
    for rule in (RankRule(), RankRule(count=3), RankRule(percent=50)):
        assert rule.rank([]) == rule.rank([0.0, 0.0]) == 0


def test_a_share_takes_the_fewest_that_reach_it():
    s = [math.sqrt(x) for x in (50.0, 30.0, 15.0, 5.0)]
    assert [RankRule(percent=p).rank(s) for p in (1, 49, 51, 79, 81, 94, 96, 100)] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_ties_at_the_cut_stay_together():
    assert [RankRule(count=k).rank([3, 2, 2, 2, 1]) for k in (1, 2, 3, 4, 5)] == [1, 4, 4, 4, 5]
    assert RankRule(percent=60).rank([2, 2, 2, 1]) == 3
    assert RankRule(count=1).rank([1.0, 1 - 0.9e-4]) == 2
    assert RankRule(count=1).rank([1.0, 1 - 1.1e-4]) == 1
