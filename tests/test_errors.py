"""Errors say the same problem everywhere, and the remedy in the words of the surface."""

from __future__ import annotations

import pickle

import pytest

from lib_nplora.errors import FileError, NploraError, Remedy


@pytest.mark.parametrize(
    ("surface", "told"),
    [("command line", "it is full: add --more"), ("API", "it is full: give more"), ("WebUI", "it is full: tick more")],
)
def test_each_surface_has_words_of_its_own(surface, told):
    assert FileError("it is full", Remedy("add --more", "give more", "tick more")).told(surface) == told


def test_a_webui_takes_the_api_s_words_if_it_has_none():
    assert NploraError("it is full", Remedy("add --more", "give more")).told("WebUI") == "it is full: give more"


def test_str_is_for_the_command_line():
    assert str(NploraError("it is full", Remedy("add --more", "give more"))) == "it is full: add --more"


def test_a_problem_without_a_remedy_is_the_same_everywhere():
    error = NploraError("it is full")
    assert {str(error), *(error.told(surface) for surface in ("command line", "API", "WebUI"))} == {"it is full"}


def test_the_remedy_survives_a_journey():
    error = FileError("it is full", Remedy("add --more", "give more"))
    assert pickle.loads(pickle.dumps(error)).told("API") == "it is full: give more"
