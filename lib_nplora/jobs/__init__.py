"""Requests carried out: in a running WebUI, and from file to file."""
