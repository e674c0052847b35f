"""The comments in a prompt, which the host cuts out only after we have read it."""

from __future__ import annotations

import importlib
import re

_SIGNS = {"#x": r"#[^\n]*", "//x": r"//[^\n]*", "/*x*/": r"/\*.*?\*/"}
"""A comment -> all comments of its kind."""


def visible(prompt: str) -> str:
    """The prompt with blanks for its comments, sign for sign."""
    kinds = _known()
    return (
        re.sub("|".join(kinds), lambda match: re.sub(r"[^\n]", " ", match[0]), prompt, flags=re.S) if kinds else prompt
    )


def _known() -> list[str]:
    """The kinds of comment that this host cuts out."""
    try:
        strip = importlib.import_module("modules.processing_scripts.comments").strip_comments
        shared = importlib.import_module("modules.shared")
    except (ImportError, AttributeError):
        return []
    if not getattr(shared.opts, "enable_prompt_comments", False):
        return []
    return [pattern for comment, pattern in _SIGNS.items() if "x" not in strip(comment)]
