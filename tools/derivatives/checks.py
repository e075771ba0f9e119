"""What is checked of a row at a point in each part of the sweep."""

import keras
import tensorflow as tf

from derivatives import operations, problems
from derivatives.operations import Case, describe


def check(part, row, point):
    """The results of a part for a row at one of its points, by the check's name."""
    tf.keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    keras.config.set_floatx("float32" if row.single else "float64")
    try:
        function, points = row.make()
        case = Case(function, points[point], row.single)
    except Exception as error:  # Whatever TensorFlow raises.
        return {"row": {"status": "no value", "text": describe(error)}}
    try:
        return _check(part, case)
    except Exception as error:  # Of the check itself: no verdict, and no silence.
        return {"process": {"status": f"the check failed: {describe(error)}"}}


def _check(part, case):
    ways = {"reverse": operations.by_reverse, "forward": operations.by_forward}
    if part == "plain":
        return operations.check(case, {"reverse": operations.by_tapes})
    if part == "operations":
        return operations.check(case, ways, compiled=("reverse",))
    if part == "loops":
        found = operations.check_loop(case)
        if found.get("loop reverse", {}).get("status") == operations.WRONG:
            # Where training and its derivative cannot be parted, problems are refused.
            found["loop problem"] = problems.check(case, looped=True)
        return found
    return {"problem": problems.check(case)}
