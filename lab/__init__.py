"""A miniature text-to-image model of our own, so that a claim about a picture can be seen and measured."""
