"""Grids: every picture at its place, and room for the words."""

from __future__ import annotations

import torch
from PIL import Image

from lab.sheet import GAP, grid, image


def test_a_picture_of_numbers_is_an_image():
    picture = torch.full((3, 4, 6), -1.0)
    picture[0] = 1.0
    made = image(picture)
    assert made.size == (6, 4)
    assert made.getpixel((0, 0)) == (255, 0, 0)


def test_pictures_stand_where_their_words_are():
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    sheet = grid([[red, None], [None, blue]], ["one", "two\nlines"], ["left", "right"], side=40)
    width, height = sheet.size
    assert sheet.getpixel((width - GAP - 20, height - GAP - 20)) == (0, 0, 255)
    assert sheet.getpixel((width - 2 * (GAP + 40) + 20, height - 2 * (GAP + 40) + 20)) == (255, 0, 0)
    assert sheet.getpixel((width - GAP - 20, height - 2 * (GAP + 40) + 20)) == (255, 255, 255)
    margin = sheet.crop((0, 0, width - 2 * (GAP + 40), height)).convert("L").getextrema()
    assert margin[0] < 100
