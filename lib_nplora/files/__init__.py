"""LoRA file <-> LoraWeights, for the command line. Inside a WebUI the host reads its own files."""

from .reader import LoraFile, read_lora
from .writer import DTYPES, write_lora

__all__ = ["DTYPES", "LoraFile", "read_lora", "write_lora"]
