"""The walk over layers, and what comes of it."""
