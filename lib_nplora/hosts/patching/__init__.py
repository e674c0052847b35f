"""What the dialects of Forge share: fusions go in as patches of a UNet and a text encoder, and so come LoRAs out."""
