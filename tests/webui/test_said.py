"""What is said of a picture, and who hears it."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from lib_nplora.webui.said import SAID, be_heard, say


class Picture:
    def __init__(self) -> None:
        self.comments: dict[str, int] = {}
        self.extra_generation_params: dict[str, str] = {}

    def comment(self, text: str) -> None:
        self.comments[text] = 1


@pytest.fixture
def logger():
    logger = logging.getLogger("nplora")
    yield logger
    logger.setLevel(logging.NOTSET)
    logging.root.setLevel(logging.WARNING)


def test_a_comment_stands_once_in_each_place(caplog):
    p = Picture()
    for text in ("a: no", "NP-LoRA: a: no", "a: no more", "a"):
        say(p, text)
    assert list(p.comments) == ["NP-LoRA: a: no", "NP-LoRA: a: no more", "NP-LoRA: a"]
    assert p.extra_generation_params == {SAID: "a: no\na: no more\na"}
    assert [record.message for record in caplog.records] == list(p.comments)


def test_what_is_no_text_can_be_written_everywhere(caplog):
    p = Picture()
    say(p, "'-\udcff.safetensors': no")
    assert p.extra_generation_params == {SAID: r"'-\udcff.safetensors': no"}
    for text in (*p.comments, *p.extra_generation_params.values(), caplog.text):
        text.encode("utf-8")


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\u2028", "\x85"], ids=ascii)
def test_a_comment_is_one_line_whatever_the_tag_holds(line_break):
    p = Picture()
    for _ in range(2):
        say(p, f"<nplora:a{line_break}:b>: no")
    assert p.extra_generation_params == {SAID: "<nplora:a :b>: no"}
    assert list(p.comments) == ["NP-LoRA: <nplora:a :b>: no"]


def test_the_next_of_several_pictures_is_told_and_the_log_is_not(caplog):
    """As the cells of a plot, which share their comments."""
    first, second = Picture(), Picture()
    second.comments = first.comments
    say(first, "no")
    say(second, "no")
    assert second.extra_generation_params == {SAID: "no"}
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("host", "chosen", "variable", "heard"),
    [
        (logging.ERROR, None, "", True),
        (logging.ERROR, "ERROR", "", False),
        (logging.ERROR, None, "ERROR", False),
        (logging.DEBUG, None, "", True),
    ],
)
def test_warnings_are_heard_unless_somebody_chose_otherwise(logger, monkeypatch, host, chosen, variable, heard):
    monkeypatch.setenv("SD_WEBUI_LOG_LEVEL", variable)
    logging.root.setLevel(host)
    be_heard(SimpleNamespace(loglevel=chosen))
    assert logger.isEnabledFor(logging.WARNING) == heard
    assert logger.isEnabledFor(logging.DEBUG) == (host == logging.DEBUG)
