"""A declarative runner for AI agents in sandboxes."""

__version__ = "0.1.0"
