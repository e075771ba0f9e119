"""Exact reversal of momentum: states are not kept but computed back, bit for bit."""
