"""Pictures on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    found = [_opened(file) for file in _in_folder(path)]
    if not found:
        raise FileError(f"there are no pictures in '{path}': name a folder that holds .png or .jpg files")
    return found


def _in_folder(folder: Path) -> Iterator[Path]:
    """The files whose endings are those of pictures."""
    from PIL import Image

    endings = Image.registered_extensions()
    return (file for file in sorted(folder.iterdir()) if file.is_file() and file.suffix.lower() in endings)


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
