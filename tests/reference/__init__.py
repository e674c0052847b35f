"""What the papers say, in float64 with numpy: what the tests hold our code against.

Shares nothing with lib_nplora but definitions, which are written here once more. Matrices are (out, in); a
convolution's is (out, in * kh * kw). Modules: np_lora, k_lora, sparse for methods; interference for rows of an
inspection; kinds for networks that are no plain LoRA; kohya for whole files.
"""

from .matrices import dense, error, truncated
from .np_lora import LOST, NOISE, basis, cut, fused, fused_layer, projector

__all__ = [
    "LOST", "NOISE", "basis", "cut", "dense", "error", "fused", "fused_layer", "projector", "truncated"
]  # fmt: skip
