"""What a training goes on from if it is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from ..errors import FileError
from ..files import replacing

SAVED_EVERY = 10
"""Steps between two states that are kept."""


@dataclass(frozen=True)
class Loss:
    """What a step came to before it was taken.

    content, style
        Mean squared difference to what that side alone answers.
    alike
        The third term, its weight included.
    """

    content: float
    style: float
    alike: float

    @property
    def total(self) -> float:
        return self.content + self.style + self.alike


@dataclass(frozen=True)
class State:
    """The file that holds it.

    made_of
        Stands for all that the training depends on.
    """

    path: Path
    made_of: str

    def save(self, numbers: Sequence[Tensor], optimizer: torch.optim.Optimizer, losses: Sequence[Loss]) -> None:
        """Raises FileError."""
        held = {
            "made_of": self.made_of,
            "numbers": [number.detach() for number in numbers],
            "optimizer": optimizer.state_dict(),
            "losses": [asdict(loss) for loss in losses],
        }
        with replacing(self.path) as part:
            torch.save(held, part)

    def restore(self, numbers: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> list[Loss]:
        """Bring back what was saved last. Returns the losses until then; none if nothing was. Raises FileError."""
        if not self.path.exists():
            return []
        held = self._held()
        with torch.no_grad():
            for number, value in zip(numbers, held["numbers"]):
                number.copy_(value)
        optimizer.load_state_dict(held["optimizer"])
        return [Loss(**loss) for loss in held["losses"]]

    def check(self) -> None:
        """Raises FileError if the file is there and cannot be gone on from."""
        if self.path.exists():
            self._held()

    def _held(self) -> dict[str, Any]:
        try:
            held: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            made_of = held["made_of"]
        except (OSError, EOFError, UnpicklingError, RuntimeError, LookupError, TypeError) as error:
            raise FileError(
                f"'{self.path}' cannot be read ({type(error).__name__}): delete it to begin anew"
            ) from error
        if made_of != self.made_of:
            raise FileError(
                f"'{self.path}' is what is left of a run that was stopped, with other files or settings: give the same "
                "ones to go on, or delete it to begin anew"
            )
        return held
