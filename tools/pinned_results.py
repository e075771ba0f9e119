"""Whether results are, bit for bit, those of a commit before.

For changes that move and rename code and are to change no number: each row of the
tests' table of dynamics in float64, by each gradient mode.

    .venv/bin/python -m tools.pinned_results --pin   # At the commit before.
    .venv/bin/python -m tools.pinned_results

compares the results with those of the file, and ends with 1 where one differs. Bits
depend on the processor and on the release of TensorFlow: pin them on the same machine.
"""

import hashlib
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import far_ho_tf as far
from tests.dynamics_table import NUM_STEPS, ROWS
from tests.helpers import Classification, normalized_problem

FLAGS = flags.FLAGS
flags.DEFINE_string("results", "tools/pinned_results.json", "File of the results.")
flags.DEFINE_bool("pin", False, "Write the file, in the place of comparing with it.")
flags.DEFINE_multi_string("only", None, "Names of rows; all by default.")

MODES = {
    "reverse": far.ReverseHG(jit_compile=False),
    "reverse, nothing kept": far.ReverseHG(jit_compile=False, keep_residuals=False),
    "reverse, sqrt": far.ReverseHG(jit_compile=False, checkpointing="sqrt"),
    "reverse, 3 states": far.ReverseHG(jit_compile=False, checkpointing=3),
    "reverse, 4 steps": far.ReverseHG(jit_compile=False, truncation=4),
    "forward": far.ForwardHG(jit_compile=False),
    "forward, chunks": far.ForwardHG(jit_compile=False, chunk_size=5),
}
# Rows that are compiled by XLA, too, and those that are undone.
COMPILED = ("Momentum", "Adam", "Keras: Adam", "BatchNorm")
REVERSIBLE = ("Momentum", "Momentum by step", "Momentum by variable")


def main(argv):
    del argv
    file = pathlib.Path(FLAGS.results)
    found = dict(results(FLAGS.only))
    if FLAGS.pin:
        file.write_text(json.dumps(found, indent=1))
        print(f"{len(found)} results are pinned in {file}")
        return None
    pinned = json.loads(file.read_text())
    if FLAGS.only:
        rows = tuple(FLAGS.only)
        pinned = {k: v for k, v in pinned.items() if k.split(" | ")[0] in rows}
    differ = [k for k in sorted({*pinned, *found}) if pinned.get(k) != found.get(k)]
    for name in differ:
        print(f"{name}: {found.get(name)} for {pinned.get(name)}")
    print(f"{len(differ)} of {len(pinned)} results differ")
    return 1 if differ or not pinned else None


def results(only=None):
    """Pairs of a row by a mode, and the outer value with a digest of all numbers."""
    for name in only or [*ROWS, "BatchNorm"]:
        modes = dict(MODES)
        if name in COMPILED:
            modes["reverse, XLA"] = far.ReverseHG(jit_compile=True)
            modes["forward, XLA"] = far.ForwardHG(jit_compile=True)
        if name in REVERSIBLE:
            modes["reversible"] = far.ReversibleHG(jit_compile=False)
        problem = _problem(name)
        for mode_name, mode in modes.items():
            yield f"{name} | {mode_name}", _told(mode.compute(problem, NUM_STEPS))
        if name in COMPILED:
            yield f"{name} | real time", _real_time(problem)
            yield f"{name} | descent", _descent(problem)
        keras.backend.clear_session()


def _problem(name):
    if name == "BatchNorm":
        return normalized_problem(far.GradientDescent(0.1))
    classification = Classification()
    dynamics, hyperparameters, _ = ROWS[name](classification)
    return classification.bilevel(dynamics, hyperparameters)


def _real_time(problem):
    """Tangents that go from one call to the next."""
    mode = far.ForwardHG(jit_compile=False)
    first = mode.compute(problem, 3)
    return _told(mode.compute(problem, 4, start=first.end))


def _descent(problem):
    """Three hyper-iterations, after which hyperparameters are as before."""
    before = [h.numpy() for h in problem.hyperparameters]
    tuner = far.HyperOptimizer(
        problem, far.ReverseHG(jit_compile=False), keras.optimizers.Adam(0.01)
    )
    tuner.fit(3, NUM_STEPS, verbose=0)
    after = [h.numpy() for h in problem.hyperparameters]
    for hyperparameter, value in zip(problem.hyperparameters, before, strict=True):
        hyperparameter.assign(value)
    return _digest(after)


def _told(result):
    numbers = [*result.hypergradients, result.inner_values, *result.state.variables]
    return [float(result.outer_value).hex(), _digest(numbers)]


def _digest(tensors):
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tf.convert_to_tensor(tensor)).tobytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    app.run(main)
