"""The miniature model: diffusers' UNet on patches of pixels, a one-layer CLIP text encoder, rectified flow."""
