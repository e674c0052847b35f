"""What a prompt asks for more than once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..hosts.protocol import ShelfFile
from ..request.request import FusionRequest, Source


@dataclass(frozen=True)
class Honoured:
    """A tag that is honoured.

    fingerprint
        Equal for equal fusions, which are applied once.
    files
        Its LoRAs, by the names that the tag gives them.
    """

    tag: str
    request: FusionRequest
    fingerprint: str
    files: Mapping[str, ShelfFile]


def repeats(tags: Sequence[Honoured]) -> Iterator[tuple[str, str]]:
    """What is asked for more than once, as (tag, remark). A tag that stands twice is given twice."""
    first: dict[str, Honoured] = {}
    again: dict[str, dict[str, int]] = {}
    for one in tags:
        first.setdefault(one.fingerprint, one)
        counts = again.setdefault(one.fingerprint, {})
        counts[one.tag] = counts.get(one.tag, 0) + 1
    for counts in again.values():
        tag, *others = counts
        if sum(counts.values()) > 1:
            same = f"it is the same as {' and '.join(others)}" if others else f"it stands {_times(counts[tag])}"
            yield tag, f"{same}, and counts once"
    yield from _loras(list(first.values()))


def _loras(fusions: Sequence[Honoured]) -> Iterator[tuple[str, str]]:
    """LoRAs that several fusions add, or several tags of one."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in fusions:
        for source in (*one.request.contents, *one.request.styles):
            if _adds(source, one.request):
                found.setdefault(one.files[source.name].path, []).append((one.tag, source.name))
    names: dict[tuple[str, ...], list[str]] = {}
    for uses in found.values():
        if len(uses) > 1:
            names.setdefault(tuple(tag for tag, _ in uses), []).append(f"'{uses[0][1]}'")
    for (tag, *others), repeated in names.items():
        elsewhere = list(dict.fromkeys(other for other in others if other != tag))
        where = f" also in {' and '.join(elsewhere)}" if elsewhere else " more than once here"
        verb = "are" if len(repeated) > 1 else "is"
        yield tag, f"{' and '.join(repeated)} {verb}{where}, so added {_times(len(others) + 1)}"


def _adds(source: Source, request: FusionRequest) -> bool:
    weights = [source.te * request.te, source.unet * request.unet, *(weight for _, weight in source.exceptions)]
    return any(weights)


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"
