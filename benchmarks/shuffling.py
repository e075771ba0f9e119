"""Ways to draw 100 of 10,000 shuffled examples at any step, in milliseconds."""

import time

import tensorflow as tf
from absl import app

import far_ho_tf as far

EXAMPLES, BATCH, CALLS = 10_000, 100, 300


def by_sorting(step):
    """The epoch's whole order, from random numbers."""
    keys = tf.random.stateless_uniform([EXAMPLES], [1, step * BATCH // EXAMPLES])
    return tf.gather(tf.argsort(keys), step * BATCH % EXAMPLES + tf.range(BATCH))


def by_stateless_shuffle(step):
    order = tf.random.experimental.stateless_shuffle(
        tf.range(EXAMPLES), seed=[1, step * BATCH // EXAMPLES]
    )
    return tf.gather(order, step * BATCH % EXAMPLES + tf.range(BATCH))


def main(_):
    batches = far.Batches(tf.range(EXAMPLES), BATCH, seed=1)
    print(f"{'':<20}{'graph':>8}{'xla':>8}")
    for name, draw in (
        ("far.Batches", batches.indices),
        ("sorting", by_sorting),
        ("stateless_shuffle", by_stateless_shuffle),
    ):
        cells = []
        for jit_compile in (False, True):
            function = tf.function(draw, jit_compile=jit_compile, autograph=False)
            try:
                function(tf.constant(0))
            except tf.errors.InvalidArgumentError:
                cells.append("no kernel")
                continue
            start = time.perf_counter()
            for step in range(CALLS):
                function(tf.constant(step))
            cells.append(f"{(time.perf_counter() - start) / CALLS * 1e3:.2f}")
        print(f"{name:<20}{cells[0]:>8}{cells[1]:>10}")


if __name__ == "__main__":
    app.run(main)
