"""LoRAs fused into a pipeline of diffusers, from Python and for the command line's `generate`."""

from .fusing import Fusion, Pair, fuse_into

__all__ = ["Fusion", "Pair", "fuse_into"]
