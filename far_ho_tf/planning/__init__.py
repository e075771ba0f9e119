"""How long each gradient mode takes, and how much memory, before it runs."""
