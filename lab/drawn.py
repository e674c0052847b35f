"""What was drawn so far: a file of entries, one line of JSON each, so that a run that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lab.rows import MEASURED, Row
from lab.scores import Entry, Graded, Score, gathered
from lib_nplora.files.hashing import sha256


@dataclass(frozen=True)
class Trained:
    """A subject and a style whose LoRAs are trained."""

    subject: str
    style: str
    seeds: tuple[int, int]
    content_file: Path
    style_file: Path
    of_pair: Mapping[str, Path] = field(default_factory=dict)
    """What is trained for the pair anew, there or not: see Row.trained."""
    besides: tuple[Path, ...] = ()
    """Further files that the pictures or their scores depend on."""

    def files(self, row: Row) -> tuple[Path, ...]:
        """The LoRAs that a row's pictures are drawn with."""
        return (self.of_pair[row.trained],) if row.trained else (self.content_file, self.style_file)

    @property
    def names(self) -> tuple[str, str, int, int]:
        return (self.subject, self.style, *self.seeds)


class Drawn:
    """Entries in a file. Those of files or settings that have changed since are told from the others, and left out."""

    def __init__(self, path: Path, shared: Sequence[Path], settings: Any, kind: type[Graded] = Score) -> None:
        """`shared` are the files of the base and of the judges, `settings` those of a picture, such as its steps."""
        self._path, self._shared, self._settings, self._kind = path, shared, settings, kind

    def entries(self, pairs: Sequence[Trained]) -> list[Entry]:
        """What was drawn of these pairs, in the order of the rows."""
        rows = {row.label: row for row in MEASURED}
        there = {pair.names: pair for pair in pairs}
        found = [
            entry
            for entry in self._read()
            if entry.pair in there
            and entry.method in rows
            and entry.made_of == self.made_of(there[entry.pair], rows[entry.method])
        ]
        return sorted(gathered(found), key=lambda entry: list(rows).index(entry.method))

    def made_of(self, pair: Trained, row: Row) -> str:
        """Stands for the files and the settings that an entry depends on."""
        files = [_hash(file) for file in (*pair.files(row), *pair.besides, *self._shared)]
        told = repr((sorted(row.settings.items()), self._settings, files))
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def add(self, entry: Entry) -> None:
        """In one piece, behind a line that was cut off if there is one."""
        line = json.dumps(entry.to_json()) + "\n"
        with self._path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read() == b"\n" else "\n" + line
            file.write(line.encode())

    def _read(self) -> list[Entry]:
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        return [
            Entry.from_json(json.loads(line), self._kind)
            for line in lines
            if line and line.count("{") == line.count("}")
        ]


def _hash(path: Path) -> str:
    """Empty if it is not there."""
    if not path.exists():
        return ""
    status = path.stat()
    return _hashed(path, status.st_mtime_ns, status.st_size)


@cache
def _hashed(path: Path, *status: int) -> str:
    """Once for each state of a file."""
    return sha256(path)
