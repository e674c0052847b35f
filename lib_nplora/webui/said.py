"""What a picture is told of its fusions: under it, among its parameters, and in the log."""

from __future__ import annotations

import logging
import os
from typing import Any

logger = logging.getLogger("nplora")

SAID = "NP-LoRA comment"
"""Stands in a picture's parameters, which are all that a program gets; one line a comment."""

_PREFIX = "NP-LoRA: "


def in_one_line(text: str) -> str:
    """Without breaks of lines, which a tag may hold."""
    return " ".join(text.splitlines())


def say(p: Any, text: str, level: int = logging.WARNING) -> None:
    """Comment on a picture, in one line. Each comment stands once, however often a request makes it.

    A file's name may hold what is no text, which neither a picture's parameters nor an answer in JSON can.
    """
    text = in_one_line(f"{_PREFIX}{text.removeprefix(_PREFIX)}").encode("utf-8", "backslashreplace").decode("utf-8")
    if text not in p.comments:
        logger.log(level, "%s", text)
    p.comment(text)
    line = text.removeprefix(_PREFIX)
    lines = p.extra_generation_params.get(SAID, "").splitlines()
    if line not in lines:
        p.extra_generation_params[SAID] = "\n".join([*lines, line])


def be_heard(cmd_opts: Any) -> None:
    """Let the log show our warnings, unless somebody chose a level: Forge Neo's own shows nothing below errors.

    cmd_opts
        The host's options on its command line.
    """
    chosen = getattr(cmd_opts, "loglevel", None) or os.environ.get("SD_WEBUI_LOG_LEVEL")
    if not chosen and not logger.isEnabledFor(logging.WARNING):
        logger.setLevel(logging.WARNING)
