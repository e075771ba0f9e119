"""Descent on hyperparameters: inner runs, outer updates, callbacks."""
