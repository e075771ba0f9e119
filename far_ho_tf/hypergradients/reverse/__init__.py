"""Reverse mode: the run, then backwards over the states that are kept of it."""
