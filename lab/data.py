"""python -m lab.data: fetch the emoji sets, draw every subject in every style, keep the pictures in one file.

The same subject is there in many styles, so there is a true picture for every fusion.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lab.fetch import SETS, read
from lab.filters import FILTERS
from lab.folder import WORK
from lab.words import ALL_STYLES, ALL_SUBJECTS

SIZE = 48
"""Pixels of a side of a picture."""

DRAWN = 4 * SIZE
"""Pixels of a side before it is made small."""


def draw(icons: dict[str, Any], name: str) -> Image.Image:
    """The icon on white, DRAWN pixels wide."""
    import resvg_py

    while name in icons.get("aliases", {}):
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    left, top = (icon.get(side, icons.get(side, 0)) for side in ("left", "top"))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#000" '
        f'viewBox="{left} {top} {width} {height}" width="{DRAWN}" height="{DRAWN}">{icon["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=DRAWN, height=DRAWN))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return fit(white.convert("RGB"))


def fit(image: Image.Image) -> Image.Image:
    """Cropped to what is drawn, with the same margin for all, so that sets differ in style and not in padding."""
    box = ImageOps.invert(image.convert("L")).point(lambda value: 255 * (value > 6)).getbbox()
    drawn = image.crop(box) if box else image
    side = int(max(drawn.size) * 1.08)
    square = Image.new("RGB", (side, side), "white")
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return square.resize((DRAWN, DRAWN), Image.Resampling.LANCZOS)


def small(image: Image.Image, style: str) -> NDArray[np.uint8]:
    """The picture at its final size; blocks of pixels stay sharp."""
    how = Image.Resampling.NEAREST if style == "pixel" else Image.Resampling.BOX
    return np.asarray(image.resize((SIZE, SIZE), how))


def styled(drawn: Image.Image, style: str) -> Image.Image:
    """The drawing of the style's own set, after the style's filter if it has one."""
    if style not in FILTERS:
        return drawn
    values = FILTERS[style][1](np.asarray(drawn, np.float32) / 255)
    return Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8))


def draw_all(folder: Path, subjects: Sequence[str], styles: Sequence[str]) -> NDArray[np.uint8]:
    """(subject, style, SIZE, SIZE, 3)"""
    sources = {style: FILTERS[style][0] if style in FILTERS else style for style in styles}
    icons = {name: read(SETS[name], folder) for name in sorted(set(sources.values()))}
    rows = []
    for subject in subjects:
        drawn = {name: draw(icons[name], subject) for name in icons}
        rows.append([small(styled(drawn[sources[style]], style), style) for style in styles])
    return np.array(rows)


@dataclass(frozen=True)
class Pictures:
    """Every subject in every style, as they truly look."""

    subjects: tuple[str, ...]
    styles: tuple[str, ...]
    pixels: NDArray[np.uint8]
    """(subject, style, SIZE, SIZE, 3)"""

    def __getitem__(self, pair: tuple[str, str]) -> NDArray[np.uint8]:
        subject, style = pair
        return self.pixels[self.subjects.index(subject), self.styles.index(style)]

    def tensor(self, pairs: Iterable[tuple[str, str]]) -> torch.Tensor:
        """(pairs, 3, SIZE, SIZE), -1 to 1, as the model sees them."""
        stacked = torch.from_numpy(np.stack([self[pair] for pair in pairs]))
        return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1

    def save(self, path: Path) -> None:
        np.savez_compressed(path, pixels=self.pixels, subjects=self.subjects, styles=self.styles)

    @classmethod
    def load(cls, path: Path) -> Pictures:
        with np.load(path) as file:
            return cls(tuple(map(str, file["subjects"])), tuple(map(str, file["styles"])), file["pixels"])


def pictures(work: Path = WORK) -> Pictures:
    """The pictures in the working folder; drawn first if they are not there or lack a word."""
    path = work / "pictures.npz"
    if path.exists():
        found = Pictures.load(path)
        if set(ALL_SUBJECTS) <= set(found.subjects) and set(ALL_STYLES) <= set(found.styles):
            return found
    made = Pictures(tuple(ALL_SUBJECTS), tuple(ALL_STYLES), draw_all(work / "npm", ALL_SUBJECTS, ALL_STYLES))
    made.save(path)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, help="folder for downloads and pictures")
    found = pictures(parser.parse_args().work)
    print(f"{len(found.subjects)} subjects in {len(found.styles)} styles")


if __name__ == "__main__":
    main()
