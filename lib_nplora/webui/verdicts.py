"""What is known of pairs without being asked for: inspections that were made, or that take no time.

An inspection whose time is up is taken up where it was by the next question about the pair, so that a slow machine, or
one that is busy, comes to a verdict too.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import replace
from time import monotonic
from typing import TypeVar

from ..errors import FileError
from ..findings.said import Said
from ..findings.sentences import verdict
from ..findings.strength import at_strength, without_strength
from ..fusion.walk import FusedLayer
from ..jobs.pair import FileFusion, FilePair, inspect_files
from ..request.tag import format_tag

SECONDS = 1.0
"""How long an inspection may take that nobody asked for."""

MOST_BYTES = 400 << 20
"""How large its two files may be together: more are not read within that time."""

MOST_PAIRS = 16

Key = tuple[object, ...]
T = TypeVar("T")

_kept: OrderedDict[Key, FileFusion] = OrderedDict()
"""Pair -> what was found."""

_begun: OrderedDict[Key, list[FusedLayer]] = OrderedDict()
"""Pair -> what was measured of it when its time was up."""

_lock = threading.Lock()


class _TooSlowError(Exception):
    """The time is up."""


def keep(pair: FilePair, fusion: FileFusion) -> None:
    """Know this pair from now on, whatever its mu."""
    _remember(_kept, _key(pair), fusion)


def quick(pair: FilePair) -> Said | None:
    """The verdict on a pair, if it is known or can be told in a moment; else None.

    Raises FileError, MismatchError, RequestError.
    """
    key = _key(pair)
    fusion = _kept.get(key) or _inspected(pair, key)
    if fusion is None:
        return None
    _remember(_kept, key, fusion)
    return verdict(at_strength(fusion, pair.request), pair.request)


def _inspected(pair: FilePair, key: Key) -> FileFusion | None:
    """None if it takes too long."""
    end = monotonic() + SECONDS

    def hurry(done: int, total: int) -> None:
        if monotonic() > end:
            raise _TooSlowError

    if sum(stat.st_size for stat in _stats(pair)) > MOST_BYTES:
        return None
    measured = _begun.pop(key, [])
    try:
        return inspect_files(replace(pair, request=without_strength(pair.request)), hurry, measured)
    except _TooSlowError:
        _remember(_begun, key, measured)
        return None


def _remember(known: OrderedDict[Key, T], key: Key, value: T) -> None:
    with _lock:
        known[key] = value
        known.move_to_end(key)
        while len(known) > MOST_PAIRS:
            known.popitem(last=False)


def _key(pair: FilePair) -> Key:
    """All that what is measured hangs on. Raises FileError."""
    paths = (pair.content, pair.style)
    stamps = [(os.fspath(path), stat.st_mtime_ns) for path, stat in zip(paths, _stats(pair))]
    settings = [pair.request.values.text(one) for one in pair.request.method.parameters if one.is_setting]
    return (*stamps, pair.base, format_tag(without_strength(pair.request)), *settings)


def _stats(pair: FilePair) -> list[os.stat_result]:
    """Raises FileError."""
    try:
        return [path.stat() for path in (pair.content, pair.style)]
    except OSError as error:
        raise FileError(f"'{error.filename}' cannot be read: {error.strerror}") from error
