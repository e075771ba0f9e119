"""Trained variables and tensors in their place: who they are, values, derivatives."""
