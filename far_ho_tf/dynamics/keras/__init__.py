"""Keras optimizers as dynamics: their own update rules, made functions of tensors."""
