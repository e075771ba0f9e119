"""Times the second-order product of a step back by three compositions of derivatives.

vᵀ∂g/∂(w, λ), where g = ∇_w L is what a step computes, is the derivative of a scalar's
gradient along v, so that each of them gives it: reverse over reverse, forward over
reverse, reverse over forward. Runs of products under XLA, in turn; prints a Markdown
table.
"""

import itertools

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from problems import seconds

FLAGS = flags.FLAGS
flags.DEFINE_list("sizes", ["784", "300", "300", "10"], "Of the layers.")
flags.DEFINE_integer("batch", 100, "Examples.")
flags.DEFINE_integer("repeats", 100, "Products in a run.")
flags.DEFINE_integer("rounds", 7, "Runs of each.")


def reverse_over_reverse(loss, sources, along):
    with tf.GradientTape() as outer:
        outer.watch(sources)
        with tf.GradientTape() as inner:
            inner.watch(sources)
            value = loss(*sources)
        gradients = inner.gradient(value, sources[:-1])
    return outer.gradient(gradients, sources, output_gradients=along)


def forward_over_reverse(loss, sources, along):
    along = [*along, tf.zeros_like(sources[-1])]
    with tf.autodiff.ForwardAccumulator(sources, along) as accumulator:
        with tf.GradientTape() as tape:
            tape.watch(sources)
            value = loss(*sources)
        gradients = tape.gradient(value, sources)
    return accumulator.jvp(gradients)


def reverse_over_forward(loss, sources, along):
    along = [*along, tf.zeros_like(sources[-1])]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        with tf.autodiff.ForwardAccumulator(sources, along) as accumulator:
            value = loss(*sources)
        slope = accumulator.jvp(value)
    return tape.gradient(slope, sources)


WAYS = (reverse_over_reverse, forward_over_reverse, reverse_over_forward)


def network(sizes, batch):
    """A loss of weights and a weight for each example; its arguments; a direction."""
    random = np.random.RandomState(0)
    x = tf.constant(random.randn(batch, sizes[0]), tf.float32)
    y = tf.constant(random.randint(0, sizes[-1], batch))
    sources = []
    for before, after in itertools.pairwise(sizes):
        sources.append(random.randn(before, after) / np.sqrt(before))
        sources.append(np.zeros(after))
    sources.append(np.ones(batch))
    sources = [tf.constant(source, tf.float32) for source in sources]
    along = [tf.constant(random.randn(*s.shape), tf.float32) for s in sources[:-1]]

    def loss(*sources):
        *weights, by_example = sources
        hidden = x
        for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
            hidden = tf.tanh(hidden @ kernel + bias)
        logits = hidden @ weights[-2] + weights[-1]
        losses = keras.ops.sparse_categorical_crossentropy(y, logits, from_logits=True)
        return tf.reduce_mean(by_example * losses)

    return loss, sources, along


def run(way, loss, sources, repeats):
    """A compiled run of products, each along a direction that the last one moved."""

    def body(index, along):
        *product, _ = way(loss, sources, along)
        return index + 1, [a + 1e-6 * p for a, p in zip(along, product, strict=True)]

    @tf.function(jit_compile=True)
    def products(along):
        _, along = tf.while_loop(lambda i, _: i < repeats, body, (0, along))
        return along

    return products


def _vector(tensors):
    return np.concatenate([np.ravel(tensor) for tensor in tensors])


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    loss, sources, along = network([int(s) for s in FLAGS.sizes], FLAGS.batch)
    runs = {way: run(way, loss, sources, FLAGS.repeats) for way in WAYS}
    found = {way: _vector(way(loss, sources, along)) for way in WAYS}
    for function in runs.values():
        function(along)  # Compiles.
    times = {way: [] for way in WAYS}
    for _ in range(FLAGS.rounds):
        for way, function in runs.items():
            times[way].append(seconds(lambda f=function: f(along)[0].numpy()))
    print("| composition | ms a product | / reverse over reverse | difference |")
    print("|---|---|---|---|")
    first = WAYS[0]
    for way in WAYS:
        ratio = np.median(np.array(times[way]) / np.array(times[first]))
        off = np.linalg.norm(found[way] - found[first]) / np.linalg.norm(found[first])
        each = 1e3 * np.median(times[way]) / FLAGS.repeats
        name = way.__name__.replace("_", " ")
        print(f"| {name} | {each:.3f} | {ratio:.2f} | {off:.0e} |")


if __name__ == "__main__":
    app.run(main)
