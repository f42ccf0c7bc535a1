"""How a provider makes, finds, tags, lists and ends sandboxes."""
