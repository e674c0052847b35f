"""NP-LoRA: fuse a content LoRA and a style LoRA so that neither spoils the other."""

__version__ = "0.1.0"
