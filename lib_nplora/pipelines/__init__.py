"""LoRAs fused into a pipeline of diffusers, from Python and for the command line's `generate` and `zip`."""

from .fusing import Fusion, Pair, fuse_into
from .observing import Looks

__all__ = ["Fusion", "Looks", "Pair", "fuse_into"]
