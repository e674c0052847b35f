"""What the measurements are asked for."""

from __future__ import annotations

import argparse

from .sdxl import shapes


def parser(module: str, about: str | None, rank: int, rounds: int) -> argparse.ArgumentParser:
    """The arguments that each of them has, with its usual rank and number of rounds."""
    layers = len(list(shapes()))
    made = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    made.add_argument("--layers", type=int, default=layers, help=f"how many of the {layers} layers (default: all)")
    made.add_argument("--rank", type=int, default=rank, help=f"rank of both LoRAs (default: {rank})")
    made.add_argument("--rounds", type=int, default=rounds, help=f"rounds, after one to warm up (default: {rounds})")
    return made
