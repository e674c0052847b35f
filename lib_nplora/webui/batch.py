"""What the pictures of one batch ask for, of which the host heeds the first alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .prompt_text import find


def unheeded(p: Any) -> list[str]:
    """Says how many pictures of the batch at hand ask for other fusions than the first, for the batch that `p` is."""
    size = getattr(p, "batch_size", 1)
    start = getattr(p, "iteration", 0) * size
    prompts: Sequence[str] = (getattr(p, "all_prompts", None) or ())[start : start + size]
    first, *others = [[standing.asked.tag for standing in find(prompt)] for prompt in prompts] or [[]]
    different = sum(tags != first for tags in others)
    if not different:
        return []
    return [
        f"{different} of {len(prompts)} pictures of a batch ask for another fusion than its first, whose counts for "
        "all. Make them with batch size 1 and a higher batch count"
    ]
