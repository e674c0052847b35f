"""Drawing, filters, and the file of pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lab import fetch
from lab.data import DRAWN, SIZE, Pictures, draw, fit, small, styled
from lab.filters import FILTERS, lightness, outside

ICONS = {
    "width": 32,
    "height": 32,
    "icons": {"block": {"body": '<path fill="#f00" d="M4 8h8v8H4z"/>'}},
    "aliases": {"brick": {"parent": "block"}},
}


def test_an_icon_is_drawn_to_the_edge_of_its_picture():
    pytest.importorskip("resvg_py")
    drawn = np.asarray(draw(ICONS, "brick"))
    assert drawn.shape == (DRAWN, DRAWN, 3)
    assert drawn[DRAWN // 2, DRAWN // 2].tolist() == [255, 0, 0]
    assert drawn[0, 0].tolist() == [255, 255, 255]
    red = (drawn == [255, 0, 0]).all(-1)
    assert 0.75 < red.mean() < 0.9


@pytest.mark.parametrize("box", [(10, 10, 30, 50), (0, 0, 100, 20)])
def test_what_is_drawn_is_put_in_the_middle_and_fills_the_square(box):
    image = Image.new("RGB", (100, 100), "white")
    image.paste("black", box)
    left, top, right, bottom = fit(image).convert("L").point(lambda value: 255 * (value < 128)).getbbox()
    assert max(right - left, bottom - top) == pytest.approx(DRAWN / 1.08, abs=6)
    assert left + right == pytest.approx(DRAWN, abs=4)
    assert top + bottom == pytest.approx(DRAWN, abs=4)


def ring() -> Image.Image:
    """A black ring, white inside and outside."""
    row, column = np.mgrid[:DRAWN, :DRAWN] - DRAWN / 2
    distance = np.hypot(row, column)
    grey = np.where((distance > 40) & (distance < 60), 0, 255).astype(np.uint8)
    return Image.fromarray(np.repeat(grey[..., None], 3, -1))


def test_outside_is_the_white_around_and_not_within():
    mask = outside(np.asarray(ring(), np.float32) / 255)[..., 0]
    assert mask[2, 2] > 0.99
    assert mask[DRAWN // 2, DRAWN // 2] < 0.01
    assert mask[DRAWN // 2, DRAWN // 2 + 50] < 0.01


@pytest.mark.parametrize("style", FILTERS)
def test_a_filter_keeps_the_size_and_changes_the_look(style):
    before, after = ring(), styled(ring(), style)
    assert after.size == before.size
    difference = np.abs(np.asarray(after, float) - np.asarray(before, float)).mean()
    assert difference > 5
    assert small(after, style).shape == (SIZE, SIZE, 3)


def test_no_two_filters_look_alike():
    looks = {style: np.asarray(styled(ring(), style), float) for style in FILTERS}
    names = list(looks)
    for index, one in enumerate(names):
        for other in names[:index]:
            assert np.abs(looks[one] - looks[other]).mean() > 5, (one, other)


def test_lightness_is_of_white_one_and_of_black_nothing():
    assert lightness(np.ones((1, 1, 3), np.float32)) == pytest.approx(1)
    assert lightness(np.zeros((1, 1, 3), np.float32)) == 0


def test_pictures_come_back_from_their_file(tmp_path, noise_pictures):
    noise_pictures.save(tmp_path / "pictures.npz")
    found = Pictures.load(tmp_path / "pictures.npz")
    assert found.subjects == noise_pictures.subjects
    assert found.styles == noise_pictures.styles
    assert (found["fox", "neon"] == noise_pictures["fox", "neon"]).all()


def test_a_tensor_of_pictures_runs_from_minus_one_to_one(noise_pictures):
    tensor = noise_pictures.tensor([("fox", "neon"), ("lion", "noto")])
    assert tensor.shape == (2, 3, SIZE, SIZE)
    assert -1 <= tensor.min() < -0.9
    assert 0.9 < tensor.max() <= 1
    back = ((tensor[1].permute(1, 2, 0) + 1) * 127.5).round().numpy()
    assert (back == noise_pictures["lion", "noto"]).all()


def test_a_set_of_another_licence_is_refused(tmp_path):
    import io
    import tarfile

    emoji_set = fetch.SETS["noto"]
    with tarfile.open(tmp_path / emoji_set.archive, "w:gz") as archive:
        text = b'{"license": "All rights reserved"}'
        member = tarfile.TarInfo("package/package.json")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    with pytest.raises(ValueError, match="All rights reserved"):
        fetch.read(emoji_set, tmp_path)
