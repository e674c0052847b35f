"""The kinds of error that a user can meet. Each one's text is a sentence written for that user."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Surface = Literal["command line", "API", "WebUI"]
"""Where a sentence is read; in a WebUI that is the panel, or the comments of a picture."""


@dataclass(frozen=True)
class Remedy:
    """What a user can do about a problem, in the words of each surface.

    webui
        Empty if the API's words do.
    """

    command_line: str
    api: str
    webui: str = ""

    def on(self, surface: Surface) -> str:
        return {"command line": self.command_line, "API": self.api, "WebUI": self.webui or self.api}[surface]


def sentence(problem: str, remedy: Remedy | None, surface: Surface) -> str:
    """A problem and its remedy, in the words of the surface."""
    return f"{problem}: {remedy.on(surface)}" if remedy else problem


class NploraError(Exception):
    """Something that the user can put right. It says what was wrong, where, and what would work.

    problem
        All of that; without what would work, if that depends on the surface.
    remedy
        What would work, if that depends on the surface.
    str(error) is in the words of the command line.
    """

    def __init__(self, problem: str, remedy: Remedy | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return self.told("command line")

    def told(self, surface: Surface) -> str:
        return sentence(self.problem, self.remedy, surface)


class RequestError(NploraError):
    """A tag or an option that cannot be read."""


class NotFoundError(NploraError):
    """A name that no LoRA has."""


class FileError(NploraError):
    """A LoRA file that cannot be read, or cannot be fused."""


class MismatchError(NploraError):
    """LoRAs that do not fit each other or the loaded model."""


class HostError(NploraError):
    """Something that this WebUI or this pipeline, as it is now, cannot do."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A question that names the nearest of `known`, or an empty string when none is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(wrong.strip().lower(), by_lower, n=1)
    return f" Did you mean '{by_lower[near[0]]}'?" if near else ""


def did_you_mean_lora(wrong: str, known: Iterable[str]) -> str:
    """The same question for a LoRA, which may have been named with its folder and its ending."""
    return did_you_mean(re.sub(r"^.*[/\\]|\.(safetensors|ckpt|pt)\s*$", "", wrong, flags=re.IGNORECASE), known)
