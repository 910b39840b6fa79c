"""The ways of mail through this fleet."""

from lab_ways import ways

__all__ = ["ways"]
