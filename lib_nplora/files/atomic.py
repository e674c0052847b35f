"""Files that appear once they are complete, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError

from ..errors import FileError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` that takes its place in the end. Nothing is left behind if the work is cut short.

    safetensors creates files that only their owner can read; this one gets the permissions of any new file here.
    Until then it has no ending, so that no list of LoRAs shows it, and a path that is no longer than any LoRA's here:
    a name may be as long as the file system takes.
    """
    try:
        with TemporaryDirectory(prefix=".np", dir=path.parent) as folder:
            part = Path(folder) / "x"
            part.touch()
            permissions = part.stat().st_mode
            yield part
            part.chmod(permissions)
            os.replace(part, path)
    except (OSError, SafetensorError) as error:
        raise FileError(f"'{path}' cannot be written: {error}") from error
