"""How long a fusion takes next to the plain merge that it replaces. Run with `python -m tests.bench`."""
