"""The host's list of translations, for sentences that it does not find on its page because they hold numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..errors import NploraError
from ..findings.said import translated


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
    parts = [error.problem, *([error.remedy.on("WebUI")] if error.remedy else [])]
    return ": ".join(translated(" ".join(part.split()), words) for part in parts)
