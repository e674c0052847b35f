"""The folder of pairs: a folder for each subject and each style, with pictures, a prompt and perhaps LoRAs."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from lib_nplora.errors import FileError, NotFoundError, RequestError
from lib_nplora.pipelines.pictures import picture_files, read_pictures

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPT = "prompt.txt"
SHOWN = re.compile(r"\{(.+?)\}")
"""What a picture shows, less its style: `{a cabin} in szn style`."""


@dataclass(frozen=True)
class Side:
    """A subject, role `content`, or a style, role `style`.

    lines
        Its prompts: one for all pictures, or one for each in the order of their names.
    files
        Its pictures.
    """

    role: str
    folder: Path
    lines: tuple[str, ...]
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def prompts(self) -> tuple[str, ...]:
        """What each picture is trained by, one a picture."""
        plain = tuple(SHOWN.sub(r"\1", line) for line in self.lines)
        return plain if len(plain) == len(self.files) else plain[:1] * len(self.files)

    @property
    def shown(self) -> str:
        """What the first prompt says is shown; all of it if there are no braces."""
        found = SHOWN.search(self.lines[0])
        return found[1] if found else self.lines[0]

    @cached_property
    def pictures(self) -> Sequence[Image]:
        return read_pictures(self.files)

    def lora(self, seed: int, made: Path) -> Path:
        """The file of a training seed: the user's own if it is there, else that of the folder of trained ones."""
        own = self.folder / f"{seed}.safetensors"
        return own if own.is_file() else made / f"{self.role}-{self.name}-{seed}.safetensors"


def fused_prompt(content: Side, style: Side) -> str:
    """The style's prompt of the content's subject: 'a sks dog in szn style'."""
    return SHOWN.sub(lambda _: content.shown, style.lines[0], count=1)


def read_side(role: str, folder: Path) -> Side:
    """Raises FileError for a folder that lacks something."""
    path = folder / PROMPT
    if not path.is_file():
        raise FileError(
            f"there is no {PROMPT} in '{folder}': write into it what its pictures show, such as 'a sks dog'"
        )
    lines = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    files = tuple(picture_files(folder))
    if len(lines) not in (1, len(files)):
        raise FileError(f"'{path}' has {len(lines)} lines for {len(files)} pictures: write one, or one for each")
    if role == "style" and not SHOWN.search(lines[0]):
        raise FileError(
            f"'{path}' does not say what is shown: put it in braces, as in '{{a cabin}} in szn style', and the subject "
            "takes its place"
        )
    return Side(role, folder, lines, files)


def read_sides(folder: Path, role: str) -> list[Side]:
    """All subjects or all styles, by name. Raises FileError."""
    where = folder / role
    if not where.is_dir():
        raise FileError(f"there is no folder '{where}': it is to hold a folder for each {_what(role)}")
    found = [read_side(role, one) for one in sorted(where.iterdir()) if one.is_dir() and not one.name.startswith(".")]
    if not found:
        raise FileError(f"there is no folder in '{where}': it is to hold one for each {_what(role)}")
    return found


def read_pairs(folder: Path, patterns: Sequence[str], count: int) -> list[tuple[Side, Side]]:
    """The pairs whose SUBJECT/STYLE is like a pattern; if they are more than `count`, as many of them at random.

    Raises FileError, NotFoundError if there is none of that name, RequestError for a count below 1.
    """
    if count < 1:
        raise RequestError(f"there is nothing to draw of {count} pairs: ask for 1 or more")
    contents, styles = (read_sides(folder, role) for role in ("content", "style"))
    found = [
        (content, style)
        for content, style in product(contents, styles)
        if any(fnmatchcase(f"{content.name}/{style.name}", pattern) for pattern in patterns)
    ]
    if not found:
        raise NotFoundError(
            f"no pair in '{folder}' is called {' or '.join(patterns)}: write SUBJECT/STYLE, as in 'dog/*'"
        )
    chosen = random.Random(0).sample(range(len(found)), min(count, len(found)))
    return [found[index] for index in sorted(chosen)]


def _what(role: str) -> str:
    return {"content": "subject", "style": "style"}[role]
