"""The inner and outer problem, and what is found out before loops are compiled."""
