"""Measurements beside other tools: see `run.py`."""
