"""The experiments, a folder each; README.md lists them.

Modules are imported by their path from the root of the repository, such as
`examples.per_weight_l2.experiment`. Each run.py puts that root on `sys.path`.
"""
