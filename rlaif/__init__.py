"""rlaif: AI-labelled preference data you can trust, and training on it."""

from __future__ import annotations

__version__ = "0.1.0"
