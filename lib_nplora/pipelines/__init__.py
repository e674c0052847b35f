"""LoRAs fused into a pipeline of diffusers, for programs in Python.

from lib_nplora.pipelines import fuse_into

with fuse_into(pipe, "dog.safetensors", "vangogh.safetensors", mu=0.5):
    picture = pipe("a photo of my dog").images[0]
"""

from .fusing import Fusion, Pair, fuse_into

__all__ = ["Fusion", "Pair", "fuse_into"]
