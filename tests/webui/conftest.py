"""A folder of LoRAs, for what reads and writes there."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def lora_folder(tmp_path: Path) -> Path:
    """LoRAs, with LoRAs/styles, and LoRAs/out -> a folder beside it."""
    made = tmp_path / "LoRAs"
    (made / "styles").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (made / "out").symlink_to(tmp_path / "elsewhere")
    return made
