"""Traced functions: searched, measured, compiled, and explained when they fail."""
