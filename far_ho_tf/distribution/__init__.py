"""Replicas and workers: shards of batches, sums over them, and what must agree."""
