"""Hashes of files too large to hold in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import FileError

_CHUNK = 1 << 20


def sha256(path: Path, start: int = 0) -> str:
    """SHA-256 of the file from byte `start` on, as hexadecimal text. Raises FileError, of a file deleted by now too."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            file.seek(start)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise FileError(f"'{path.name}' cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def kohya_hashes(path: Path) -> dict[str, str]:
    """The hashes by which the WebUI and Civitai know a LoRA, of a safetensors file with no metadata but `ss_...`.

    The first is of the tensors without the header, the second of 64 KiB from 1 MiB on.
    """
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        file.seek(0x100000)
        legacy = hashlib.sha256(file.read(0x10000)).hexdigest()[:8]
    return {"sshs_model_hash": sha256(path, 8 + header), "sshs_legacy_hash": legacy}
