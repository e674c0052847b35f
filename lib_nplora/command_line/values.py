"""How values are read that no tag has."""

from __future__ import annotations

from ..errors import RequestError


def whole(name: str, most: int, text: str) -> int:
    """Raises RequestError."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= most:
        raise RequestError(f"{name}={text} is not a whole number from 1 to {most}")
    return int(text[:9])
