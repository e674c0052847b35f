"""The fusion methods."""
