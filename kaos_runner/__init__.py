"""A declarative runner for AI agents in sandboxes."""
