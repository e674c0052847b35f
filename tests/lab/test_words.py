"""Words: what is held out is held out, and captions hold no word that the model lacks."""

from __future__ import annotations

import pytest

from lab.fetch import SETS
from lab.filters import FILTERS
from lab.model.parts import WORDS, new_tokenizer
from lab.words import (
    ALL_STYLES,
    ALL_SUBJECTS,
    HELD_OUT_STYLES,
    HELD_OUT_SUBJECTS,
    STYLES,
    SUBJECTS,
    caption,
    content_caption,
    fused_caption,
    style_caption,
    vocabulary,
)


def test_the_base_model_never_sees_what_is_held_out():
    assert not set(HELD_OUT_SUBJECTS) & set(SUBJECTS)
    assert not set(HELD_OUT_STYLES) & set(STYLES)
    held_out = {word for name in [*HELD_OUT_SUBJECTS, *HELD_OUT_STYLES] for word in name.split("-")}
    assert not held_out & set(vocabulary())


def test_every_subject_and_style_is_there_once():
    assert len(set(ALL_SUBJECTS)) == len(ALL_SUBJECTS) == 42
    assert len(set(ALL_STYLES)) == len(ALL_STYLES) == 15


@pytest.mark.parametrize("style", ALL_STYLES)
def test_every_style_is_a_set_or_made_from_one(style):
    assert (style in SETS) != (style in FILTERS)
    assert style in SETS or FILTERS[style][0] in SETS


def test_every_caption_fits_and_is_known_word_by_word():
    tokenizer = new_tokenizer()
    captions = [caption(subject, style) for subject in SUBJECTS for style in [*STYLES, None]]
    captions += [content_caption(subject, style) for subject in HELD_OUT_SUBJECTS for style in [*STYLES, None]]
    captions += [*map(style_caption, SUBJECTS), *map(fused_caption, HELD_OUT_SUBJECTS)]
    for tokens in tokenizer(captions).input_ids:
        assert len(tokens) <= WORDS
        assert tokenizer.unk_token_id not in tokens


def test_captions_are_these():
    assert caption("cat-face", "noto") == "a cat face animal in noto style"
    assert content_caption("fox", "noto") == "a sks animal in noto style"
    assert style_caption("lion") == "a lion animal in swz style"
    assert fused_caption("fox") == "a sks animal in swz style"
