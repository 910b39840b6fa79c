"""Fixtures of this scenario."""

from lab_partner import partner

__all__ = ["partner"]
