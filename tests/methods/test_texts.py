"""Values as texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.methods.texts import HARD, format_number, parse_mu, parse_number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back(value):
    assert parse_number("c", format_number(value)) == value


@given(st.one_of(st.just(HARD), st.floats(0, allow_infinity=False)))
def test_a_mu_reads_back(value):
    assert parse_mu(format_number(value)) == value


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (0.5, "0.5"), (-2, "-2"), (HARD, "hard"), (1e-05, "1e-05")])
def test_a_number_is_short(value, text):
    assert format_number(value) == text
