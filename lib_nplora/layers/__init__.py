"""What tells layers apart, and where they stand."""
