"""What the user might not expect of a LoRA file, read or written."""

from __future__ import annotations

from collections.abc import Iterator

from ..files import WHOSE, Family, LoraFile, Spelling, header_label
from .job import Remark


def of_header(lora: LoraFile) -> Iterator[Remark]:
    """Where the header names another model than the layers show."""
    named, family = header_label(lora.metadata), lora.family
    if named and family and named != family.label:
        yield Remark(
            f"the header of '{lora.path.name}' names {named}, but its layers are those of {family.label}, as which it "
            "is read"
        )


def of_scale(lora: LoraFile) -> Iterator[Remark]:
    """Where WebUIs, which know of no scale but that among the tensors, apply the file otherwise."""
    name = lora.path.name
    if lora.scales_beside:
        low, high = min(lora.scales_beside), max(lora.scales_beside)
        told = f"{low:.3g}" if low == high else f"{low:.3g}-{high:.3g}"
        strength = f", {1 / low:.3g} x as strong as here" if low == high and low else ""
        yield Remark(
            f"'{name}' holds its scale ({told}) beside its tensors alone, where WebUIs do not look: "
            f"by a tag they apply it with scale 1{strength}"
        )
    if lora.unread:
        yield Remark(f"the header of '{name}' tells no scale that can be read ({', '.join(lora.unread)}): 1 is taken")


def of_spelling(family: Family, spelling: Spelling | None) -> Iterator[Remark]:
    """What hosts read a spelling, None for the usual one, that not all of them do."""
    spelling = spelling or family.usual_spelling
    if readers := family.readers.get(spelling):
        yield Remark(f"in {WHOSE[spelling]} spelling LoRAs for {family.label} are read by {readers}")
