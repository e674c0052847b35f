"""Tensors and numbers: no layer has a name here."""
