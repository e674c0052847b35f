"""The kinds of error that a user can meet. Each one's text is a sentence written for that user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NploraError(Exception):
    """Something that the user can put right. str(error) says what was wrong, where, and what would work."""


class RequestError(NploraError):
    """A tag or an option that cannot be read."""


class NotFoundError(NploraError):
    """A name that no LoRA has."""


class FileError(NploraError):
    """A LoRA file that cannot be read, or cannot be fused."""


class MismatchError(NploraError):
    """LoRAs that do not fit each other or the loaded model."""


class HostError(NploraError):
    """Something that this WebUI, as it is running now, cannot do."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A question that names the nearest of `known`, or an empty string when none is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(wrong.strip().lower(), by_lower, n=1)
    return f" Did you mean '{by_lower[near[0]]}'?" if near else ""
