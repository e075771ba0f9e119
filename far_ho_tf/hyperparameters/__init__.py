"""What is tuned: hyperparameters, and what takes them in the place of numbers."""
