"""Whether a file can be written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile

from ..errors import FileError, Remedy


def check_new(output: Path, ending: str, overwrite: bool, read: Iterable[Path | None] = ()) -> None:
    """Raises FileError unless `output`, which is to end so, can be written without harm to any file that is `read`."""
    if output.suffix != ending:
        raise FileError(f"the output '{output}' does not end in {ending}: choose such a name")
    if not os.path.isdir(output.parent):
        raise FileError(f"the output folder '{output.parent}' does not exist: create it first")
    try:
        output.exists()
    except OSError as error:
        raise FileError(f"'{output.name}' can be no name of a file: {error.strerror}") from error
    if output.is_dir():
        raise FileError(f"the output '{output}' is a folder: name a file in it")
    if output.exists():
        if any(path.exists() and output.samefile(path) for path in filter(None, read)):
            raise FileError(f"the output '{output}' is one of the files to read: choose another name")
        if not overwrite:
            raise FileError(
                f"the output '{output}' exists",
                Remedy("choose another name, or add --overwrite", "choose another name"),
            )
    try:
        with TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise FileError(f"'{output}' cannot be written: {error}") from error
