"""The papers' protocol, Table I of NP-LoRA, for anybody with SDXL, CLIP and DINO."""
