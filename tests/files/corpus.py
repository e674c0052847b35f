"""A folder full of bad LoRA files, each with a name that says what is wrong with it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from . import bad_containers, bad_headers, bad_kinds, bad_metadata, bad_names, bad_tensors, odd_sorts
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

    @property
    def fits_a_tag(self) -> bool:
        """Whether it is a small file, and a tag in a prompt can hold its name."""
        is_small = self.path.is_file() and self.path.stat().st_size < 2**20
        return is_small and not re.search("[:<>]", self.path.name)


@dataclass(frozen=True)
class Corpus:
    """All of them in one folder, with PARTNER beside them. Nobody writes there."""

    folder: Path
    files: tuple[BadFile, ...]

    @property
    def code_was_run(self) -> bool:
        return (self.folder / MARKER).exists()

    def linked(self, files: Iterable[BadFile], folder: Path) -> list[BadFile]:
        """Some of them in another folder, PARTNER beside them again."""
        os.link(self.folder / PARTNER, folder / PARTNER)
        found = []
        for file in files:
            found.append(replace(file, path=folder / "-".join(file.path.relative_to(self.folder).parts)))
            os.link(file.path, found[-1].path)
        return found


def generate(folder: Path) -> Corpus:
    """Fill an empty folder, always with the same files."""
    (folder / PARTNER).write_bytes(packed(whole(seed=7)))
    found = tuple(_made(folder, row) for row in rows(folder / MARKER))
    assert len({file.slug for file in found}) == len(found)
    return Corpus(folder, found)


def rows(marker: Path) -> list[Row]:
    """`marker` appears if code in one of the files runs."""
    plain = (bad_headers, bad_names, bad_tensors, bad_kinds, bad_metadata, odd_sorts)
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
