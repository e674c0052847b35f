"""Sentences in another language."""

from __future__ import annotations

import pytest

from lib_nplora.findings.said import translated

WORDS = {
    "the look": "der Look",
    "there is no LoRA called '{name}'.{hint}": "es gibt kein LoRA '{name}'.{hint}",
    "{text}: there is": "falsch",
    " Did you mean '{near}'?": " Ist '{near}' gemeint?",
    "{share} of it": "{share} davon",
    "{count} of {file}": "{count} aus {file}",
    "a file": "einer Datei",
    "refused: {reason}": "abgelehnt: {reason}",
    "not {share} of it": "nicht {share} davon",
    "untranslated {x}": "",
}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("the look", "der Look"),
        ("there is no LoRA called 'dgo'.", "es gibt kein LoRA 'dgo'."),
        ("there is no LoRA called 'dgo'. Did you mean 'dog'?", "es gibt kein LoRA 'dgo'. Ist 'dog' gemeint?"),
        ("there is no LoRA called 'the look'.", "es gibt kein LoRA 'the look'."),
        ("there is no LoRA called 'half of it'.", "es gibt kein LoRA 'half of it'."),
        ("refused: 3 of a file", "abgelehnt: 3 aus einer Datei"),
        ("there is no LoRA called '{hint}\\1'.", "es gibt kein LoRA '{hint}\\1'."),
        ("not 5 % of it", "nicht 5 % davon"),
        ("untranslated 3", "untranslated 3"),
        ("what nobody knows", "what nobody knows"),
    ],
)
def test_a_finished_sentence_is_translated_by_the_one_that_fits_most(text, told):
    assert translated(text, WORDS) == told
    assert translated(text, {}) == text
