"""Fusions saved among the host's LoRAs, for the panel and for REST."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import FileError
from ..files import replacing
from ..hosts.protocol import Host, shelf_of
from ..jobs.job import Progress, unwatched
from ..jobs.pair import FileFusion, FilePair, Saving, fuse_files
from ..jobs.session import remarks_of_name
from ..request.request import FusionRequest
from . import running
from .new_file import new_file

logger = logging.getLogger("nplora")

_one_at_a_time = threading.Lock()

PICTURES = (".preview.png", ".png", ".preview.jpg", ".jpg", ".preview.jpeg", ".jpeg", ".preview.webp", ".webp")
"""How the pictures are named that hosts show on a LoRA's card, after its stem."""


@dataclass(frozen=True, eq=False)
class Saved:
    """A new LoRA.

    preview
        The picture beside it, a copy of the content's or else the style's; None if neither has one.
    """

    file: Path
    fusion: FileFusion
    preview: Path | None


def file_pair(host: Host, request: FusionRequest) -> FilePair:
    """The files of a request's first content and style. Raises NotFoundError, FileError, RequestError."""
    shelf, names = shelf_of(host), [side[0].name for side in (request.contents, request.styles)]
    files = [shelf.resolve(name) for name in names]
    content, style = (Path(file.path) for file in files)
    told = tuple(remark for name, file in zip(names, files) for remark in remarks_of_name(name, file))
    return FilePair(content, style, running.filled(request), _readable(host.model.checkpoint), told)


def save(
    host: Host, request: FusionRequest, output: str, saving: Callable[[Path], Saving], progress: Progress = unwatched
) -> Saved:
    """Save a fusion into the host's folder of LoRAs, complete or not at all, and never over another file.

    output
        A name, maybe in a subfolder that is there.
    saving
        How the file is to be saved.

    Only one is made at a time. Raises ExistsError, RequestError, NotFoundError, FileError, MismatchError, and whatever
    `progress` raises.
    """

    def free() -> Path:
        return new_file(Path(shelf.folder), output, shelf.listed())

    shelf = shelf_of(host)
    pair, file = file_pair(host, request), free()
    with _one_at_a_time:
        free()
        fusion = fuse_files(pair, saving(file), progress, free)
        preview = _with_picture(file, (pair.content, pair.style))
        shelf.refresh()
    return Saved(file, fusion, preview)


def _with_picture(file: Path, sources: tuple[Path, ...]) -> Path | None:
    """Put a copy of the first source's picture beside the file, unless it has one."""
    pictures = ((source.with_suffix(ending), ending) for source in sources for ending in PICTURES)
    for picture, ending in pictures:
        copy = file.with_suffix(ending)
        if os.path.isfile(picture) and not any(os.path.exists(file.with_suffix(other)) for other in PICTURES):
            try:
                with replacing(copy) as part:
                    shutil.copyfile(picture, part)
                return copy
            except FileError as error:
                logger.warning("%s", error)
                return None
    return None


def _readable(checkpoint: str | None) -> Path | None:
    """The checkpoint's file, if it is of the kind that can be read."""
    path = Path(checkpoint) if checkpoint else None
    return path if path and path.suffix.lower() == ".safetensors" else None
