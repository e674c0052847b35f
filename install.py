"""Nothing to install: torch, safetensors, numpy and gradio come with the WebUI."""
