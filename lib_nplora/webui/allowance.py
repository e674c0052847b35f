"""How much memory is used to keep LoRAs and fusions ready, unless the user says otherwise."""

from __future__ import annotations

SHARE = 8
"""One part in so many of the machine's memory."""
MOST = 5
UNKNOWN = 2
"""GiB, where a machine does not tell."""


def usual_gib() -> int:
    """An eighth of the machine's memory, in whole GiB, 1 to 5."""
    try:
        import psutil  # the hosts' own
    except ImportError:
        return UNKNOWN
    total: int = psutil.virtual_memory().total
    return min(max(round(total / (SHARE * 2**30)), 1), MOST)
