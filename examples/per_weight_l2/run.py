"""Learns an L2 penalty for each of the 7,850 weights of softmax regression.

--num_train MNIST images are trained on, and the penalties descend on the loss on
--num_validation others. Beside it the best global penalty of a grid, chosen on
the same validation images, and no penalty; and, since 7,850 penalties see much of
the validation set, the best global penalty with training on both sets. Means over
--num_seeds random splits; the test set is used at the end only.

Prints a table, and writes results.json, penalties.png (the penalty of each pixel
for each digit) and curves.png to --output_dir. (Maclaurin et al. 2015, section
3.2.)
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import flags

from examples.common import mnist, mnist_flags, steps

FLAGS = flags.FLAGS
flags.DEFINE_integer("num_seeds", 3, "Seeds 0, 1, ...", lower_bound=1)
flags.DEFINE_integer("num_train", 1000, "Training images.", lower_bound=1)
flags.DEFINE_integer("num_validation", 5000, "Validation images.", lower_bound=1)
flags.DEFINE_integer("num_steps", 100, "Inner steps T, full batch.", lower_bound=1)
flags.DEFINE_float("learning_rate", 0.5, "Inner learning rate.", lower_bound=0)
flags.DEFINE_float("momentum", 0.9, "Inner momentum.", 0, 1)
flags.DEFINE_integer("hyper_iterations", 50, "Outer updates.", lower_bound=1)
flags.DEFINE_float(
    "hyper_learning_rate",
    0.3,
    "First learning rate of the outer Adam, on log penalties; it decays to zero as "
    "a cosine.",
    lower_bound=0,
)
flags.DEFINE_float("start_log_penalty", -6.0, "Natural logarithm, for all weights.")
flags.adopt_module_key_flags(mnist_flags)
flags.DEFINE_string("output_dir", "results/per_weight_l2", "Where to write.")
flags.DEFINE_integer("verbose", 1, "0: no progress bar.", 0, 2)


def load() -> mnist.Images:
    """The images; those of training and validation are split for each seed."""
    return mnist_flags.load(FLAGS.num_train + FLAGS.num_validation)


def start(data: mnist.Images) -> None:
    """Says what is being done."""
    print("Trying global penalties, then one per weight ...", flush=True)


def modules() -> tuple[steps.Experiment, steps.Report]:
    """Those of this example, which import TensorFlow."""
    from examples.per_weight_l2 import experiment, report

    return experiment, report


if __name__ == "__main__":
    steps.run(load, start, modules)
