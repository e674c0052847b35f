"""What can be read from a picture."""

from __future__ import annotations

from ..driver import Picture


def lora_hashes(picture: Picture) -> dict[str, str]:
    """Name of a LoRA -> its hash in the infotext."""
    _, found, rest = picture.infotext.partition('Lora hashes: "')
    assert found, picture.infotext
    return dict(pair.split(": ") for pair in rest.split('"')[0].split(", "))
