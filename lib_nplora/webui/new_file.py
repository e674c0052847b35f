"""The file that a new LoRA may be saved as."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..errors import NploraError, RequestError
from ..hosts.protocol import LoraEntry
from ..request.tag import TAG_SIGNS

SUFFIX = ".safetensors"
_LONGEST = 255
"""Bytes of a name that file systems take."""
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
"""What Windows opens in place of a file of that name, whatever its ending."""


class ExistsError(NploraError):
    """A name that is taken."""


def new_file(folder: Path, output: str, listed: Iterable[LoraEntry]) -> Path:
    """The file in the LoRA folder, or in a subfolder of it that is there, that `output` asks for.

    Raises RequestError for what is no such file, or no name that a tag could use; ExistsError for a name that a file or
    a LoRA has, whatever its case.
    """
    _refuse_strange(output)
    *parts, name = output.replace("\\", "/").split("/")
    stem = _stem(name)
    parent = folder.joinpath(*parts)
    if not Path(os.path.realpath(parent)).is_relative_to(os.path.realpath(folder)):
        raise RequestError(f"the output '{output}' leads out of the LoRA folder: {_ADVICE}")
    if not os.path.isdir(parent):
        raise RequestError(f"the LoRA folder has no subfolder '{'/'.join(parts)}': create it first")
    file = parent / (stem + SUFFIX)
    for entry in os.listdir(parent):
        if _same(entry, file.name):
            raise ExistsError(f"there is a file '{entry}' already: choose another name")
    for lora in listed:
        if (_same(lora.name, stem) or _same(lora.alias, stem)) and os.path.exists(lora.path):
            raise ExistsError(f"'{stem}' means the LoRA '{lora.path}' already: choose another name")
    return file


_ADVICE = "give a file name, or the name of a subfolder and a file name, such as 'styles/dog'"


def _refuse_strange(output: str) -> None:
    """Raises RequestError for what cannot be the path of a file in the folder."""
    if not output.isprintable():
        raise RequestError("the output holds signs that cannot be shown, such as line breaks: leave them out")
    windows = PureWindowsPath(output)
    if PurePosixPath(output).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise RequestError(f"the output '{output}' leads out of the LoRA folder: {_ADVICE}")
    if not all(part.strip(". ") for part in output.replace("\\", "/").removesuffix(SUFFIX).split("/")):
        raise RequestError(f"the output '{output}' is no file name: {_ADVICE}")


def _stem(name: str) -> str:
    """The name without its ending. Raises RequestError for one that no LoRA may have, in files or in tags."""
    stem, dot, ending = name.rpartition(".")
    if dot + ending.lower() != SUFFIX:
        if dot and ending.isalnum() and not ending[0].isdigit():
            raise RequestError(f"the output '{name}' ends in .{ending}: let it end in {SUFFIX}")
        stem = name
    signs = " ".join(sign for sign in TAG_SIGNS if sign in stem)
    if signs:
        raise RequestError(f"no tag can name '{stem}', because of its {signs}: choose a name without")
    if stem.strip(". ") != stem:
        raise RequestError(f"the name '{stem}' starts or ends with a space or a dot: choose a name that does not")
    if stem.partition(".")[0].rstrip().casefold() in _DEVICES:
        raise RequestError(f"Windows keeps the name '{stem}' for a device: choose another name")
    if len(os.fsencode(stem + SUFFIX)) > _LONGEST:
        raise RequestError(f"the name '{stem}' is too long: choose a shorter one")
    return stem


def _same(one: str, other: str) -> bool:
    """Whether some file system takes the two for one name."""
    first, second = (unicodedata.normalize("NFC", name).casefold() for name in (one, other))
    return first == second
