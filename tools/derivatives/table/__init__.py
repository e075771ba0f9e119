"""The table of functions, by their kinds."""

import collections

from derivatives.table import (
    draws,
    elementwise,
    images,
    layers,
    losses,
    matrices,
    networks,
    operators,
    places,
    pooling,
    reductions,
    shapes,
    signals,
    sparse,
    spectra,
)

MODULES = (
    elementwise,
    reductions,
    losses,
    networks,
    pooling,
    draws,
    shapes,
    places,
    sparse,
    signals,
    images,
    layers,
    matrices,
    spectra,
    operators,
)


def rows():
    """All rows, by name."""
    found = [row for module in MODULES for row in module.table()]
    twice = [n for n, c in collections.Counter(r.name for r in found).items() if c > 1]
    if twice:
        raise ValueError(f"Rows must have names of their own. Received: {twice}")
    return {row.name: row for row in found}


def cases():
    """Names of all rows at their points, "tf.math.sin @ zeros"; first points first."""
    found = rows().values()
    return [
        f"{row.name} @ {row.points[place]}"
        for place in range(max(len(row.points) for row in found))
        for row in found
        if place < len(row.points)
    ]
