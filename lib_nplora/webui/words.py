"""The host's list of translations, for sentences that it does not find on its page because they hold numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..errors import NploraError, Remedy
from ..findings.said import translated
from ..jobs.pair import FileFusion


def of_language() -> Mapping[str, str]:
    """English -> the language that the host shows; empty for English."""
    from modules import shared

    try:
        from modules import localization
    except ImportError:
        return {}
    script = localization.localization_js(getattr(shared.opts, "localization", "None"))
    found: dict[str, str] = json.loads(script.partition("=")[2].strip().rstrip(";") or "{}")
    return found


def refusal(error: NploraError, words: Mapping[str, str]) -> str:
    """Why something cannot be done, and what would work, in one line of that language."""
    return _in_one_line(error.problem, error.remedy, words)


def remarks(fusion: FileFusion, words: Mapping[str, str]) -> list[str]:
    """What is said of a fusion, a line each."""
    return [_in_one_line(remark.text, remark.remedy, words) for remark in fusion.remarks]


def _in_one_line(text: str, remedy: Remedy | None, words: Mapping[str, str]) -> str:
    parts = [text, *([remedy.on("WebUI")] if remedy else [])]
    return ": ".join(translated(" ".join(part.split()), words) for part in parts)
