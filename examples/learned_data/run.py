"""Learns ten images, one for each digit, on which to train a classifier.

Softmax regression starts from zero and makes --num_steps steps of momentum descent
on ten images. Their 7,840 pixels, and the L2 penalty, are hyperparameters: they start
blank and descend on the loss of 10,000 real MNIST images after the last step, by
exact reversal of the training run (ReversibleHG). Beside it the same training on ten
real images, one of each class, the mean of --num_draws draws.

Prints a table, and writes results.json, images.png (the ten images) and curve.png to
--output_dir. (Maclaurin et al. 2015, section 3.3.)
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import flags

from examples.common import mnist, mnist_flags, steps

FLAGS = flags.FLAGS
flags.DEFINE_integer("seed", 0, "Of the draws of real images.", 0, 2**31 - 1)
flags.DEFINE_integer(
    "num_train", 10_000, "Real images that the learned ones are judged on.", 10
)
flags.DEFINE_integer("num_steps", 50, "Inner steps T.", lower_bound=1)
flags.DEFINE_float("learning_rate", 0.1, "Inner learning rate.", lower_bound=0)
flags.DEFINE_float("momentum", 0.9, "Inner momentum.", 1e-3, 1)
flags.DEFINE_integer("hyper_iterations", 100, "Outer updates.", lower_bound=1)
flags.DEFINE_float(
    "hyper_learning_rate",
    0.03,
    "First learning rate of the outer Adam, on pixels and the log penalty; it decays "
    "to zero as a cosine.",
    lower_bound=0,
)
flags.DEFINE_integer("num_draws", 20, "Draws of ten real images.", lower_bound=1)
flags.adopt_module_key_flags(mnist_flags)
flags.DEFINE_string("output_dir", "results/learned_data", "Where to write.")
flags.DEFINE_integer("verbose", 1, "0: no progress bar.", 0, 2)


def load() -> mnist.Images:
    """The images, among which each class is to be found."""
    data = mnist_flags.load(FLAGS.num_train)
    if len(set(data.train[1].tolist())) < 10:
        raise ValueError(
            "--num_train must be large enough for an image of each class. "
            f"Received: --num_train {FLAGS.num_train}"
        )
    return data


def start(data: mnist.Images) -> None:
    """Says what is being done."""
    print("Training on ten real images, then on learned ones ...", flush=True)


def modules() -> tuple[steps.Experiment, steps.Report]:
    """Those of this example, which import TensorFlow."""
    from examples.learned_data import experiment, report

    return experiment, report


if __name__ == "__main__":
    steps.run(load, start, modules)
