"""Subjects, styles, which of them the base model never sees, and the captions that name them."""

from __future__ import annotations

KNOWN = {
    "animal": [
        "cat-face",
        "dog-face",
        "lion",
        "bear",
        "koala",
        "tiger-face",
        "rabbit-face",
        "pig-face",
        "monkey-face",
        "frog",
        "penguin",
        "owl",
        "octopus",
        "fish",
    ],
    "plant": ["tulip", "sunflower", "cactus", "evergreen-tree"],
    "food": ["red-apple", "pear", "lemon", "pineapple", "cherries", "tomato", "hamburger", "ice-cream"],
    "thing": ["red-heart", "star", "house", "balloon", "skull", "alien", "soccer-ball", "grinning-face"],
}
"""What the base model learns, by class; the names are those of the emoji sets."""

HELD_OUT = {
    "animal": ["fox", "panda", "butterfly"],
    "plant": ["rose"],
    "food": ["strawberry", "carrot"],
    "thing": ["ghost", "rocket"],
}
"""What only content LoRAs learn, and the judge."""

STYLES = [
    "twemoji",
    "noto",
    "fluentflat",
    "highcontrast",
    "sketch",
    "blueprint",
    "pixel",
    "night",
    "chalk",
    "sepia",
    "poster",
]
"""What the base model learns. The first four are sets of their own, the rest are filters (see `filters`)."""

HELD_OUT_STYLES = ["neon", "duotone", "thermal", "monotone"]
"""What only style LoRAs learn, and the judge."""

SUBJECTS = [name for names in KNOWN.values() for name in names]
HELD_OUT_SUBJECTS = [name for names in HELD_OUT.values() for name in names]
ALL_SUBJECTS = SUBJECTS + HELD_OUT_SUBJECTS
ALL_STYLES = STYLES + HELD_OUT_STYLES
CLASS = {name: kind for part in (KNOWN, HELD_OUT) for kind, names in part.items() for name in names}
"""The class word of a subject: fox -> animal."""

ANY_SUBJECT, ANY_STYLE = "sks", "swz"
"""The rare words that LoRAs give a meaning to. The base model sees them as "some subject" and "some style"."""

SPECIAL = PAD, UNKNOWN, BEGIN = "[pad]", "[unk]", "[begin]"


def caption(subject: str, style: str | None, *, kind: str | None = None) -> str:
    """The caption of a subject in a style, by their names: 'a cat face animal in noto style'."""
    words = f"a {subject.replace('-', ' ')} {kind or CLASS[subject]}"
    return f"{words} in {style} style" if style else words


def content_caption(subject: str, style: str | None = None) -> str:
    """What a content LoRA of the subject answers to: 'a sks animal in noto style'."""
    return caption(ANY_SUBJECT, style, kind=CLASS[subject])


def style_caption(subject: str) -> str:
    """What a style LoRA answers to, for a known subject: 'a cat face animal in swz style'."""
    return caption(subject, ANY_STYLE)


def fused_caption(subject: str) -> str:
    """What both LoRAs together answer to: 'a sks animal in swz style'."""
    return content_caption(subject, ANY_STYLE)


def vocabulary() -> list[str]:
    """Every word of a caption of something known, after the special ones, in an order that does not change."""
    words = {word for name in SUBJECTS for word in name.split("-")}
    return [*SPECIAL, *sorted(words | {"a", "in", "style", ANY_SUBJECT, ANY_STYLE, *KNOWN, *STYLES})]
