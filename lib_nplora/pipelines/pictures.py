"""Pictures on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FileError

if TYPE_CHECKING:
    from PIL.Image import Image


def read_pictures(paths: Sequence[Path]) -> list[Image]:
    """All of these files and in these folders, in the order of their names.

    Raises FileError for a path that is not there, a folder without pictures, and a file that is none.
    """
    return [picture for path in paths for picture in _pictures(path)]


def _pictures(path: Path) -> Iterable[Image]:
    if not path.is_dir():
        return [_opened(path)]
    return [_opened(file) for file in picture_files(path)]


def picture_files(folder: Path) -> Sequence[Path]:
    """The files whose endings are those of pictures, by name. Raises FileError if there is none."""
    from PIL import Image

    endings = Image.registered_extensions()
    found = [file for file in sorted(folder.iterdir()) if file.is_file() and file.suffix.lower() in endings]
    if not found:
        raise FileError(f"there are no pictures in '{folder}': name a folder that holds .png or .jpg files")
    return found


def _opened(path: Path) -> Image:
    from PIL import Image

    if not path.exists():
        raise FileError(f"there is no picture or folder '{path}'")
    try:
        with Image.open(path) as picture:
            made: Image.Image = picture.convert("RGB")
            return made
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise FileError(f"'{path}' cannot be read as a picture: name a .png or .jpg file") from error
