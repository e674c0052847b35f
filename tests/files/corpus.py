"""A folder full of bad LoRA files, each with a name that says what is wrong with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from . import bad_containers, bad_headers, bad_kinds, bad_metadata, bad_names, bad_tensors
from .bad_rows import Row, packed, whole

MARKER = "code-was-run"
"""This file appears in the folder if code in one of the files runs."""

PARTNER = "good.safetensors"
"""A good LoRA that the others could be fused with."""


@dataclass(frozen=True)
class BadFile:
    """One of them.

    slug
        A part of its file name that is plain text and that no other has.
    row
        What is wrong with it, and what may become of it.
    """

    path: Path
    slug: str
    row: Row


def generate(folder: Path) -> list[BadFile]:
    """Fill an empty folder, always with the same files; a good one, PARTNER, beside them."""
    (folder / PARTNER).write_bytes(packed(whole(seed=7)))
    found = [_made(folder, row) for row in rows(folder / MARKER)]
    assert len({file.slug for file in found}) == len(found)
    return found


def rows(marker: Path) -> list[Row]:
    """`marker` appears if code in one of the files runs."""
    plain = (bad_headers, bad_names, bad_tensors, bad_kinds, bad_metadata)
    return [*bad_containers.rows(marker), *(row for module in plain for row in module.rows())]


def _made(folder: Path, row: Row) -> BadFile:
    slug = re.sub(r"[^a-z0-9]+", "-", row.name.lower()).strip("-")
    path = folder / (row.file or f"{slug}.safetensors")
    assert slug in row.file or not row.file, row
    if isinstance(row.make, bytes):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(row.make)
    else:
        row.make(path)
    return BadFile(path, slug, row)
