"""Runs that survive a stop: what is written of them, and read back."""
