"""A stand-in for a WebUI's page: what an extension sees of one, in a real Gradio."""
