"""Learns a whole training run: schedules of learning rate and momentum, and scales.

A 784-50-50-50-10 network is trained on 10,000 MNIST images for --num_steps
minibatches. A learning rate and a momentum for each step and each variable, and
the scale of each variable's initial values (1,608 numbers) are learned by
hypergradients of the training loss at the last step, with new initial weights
in each hyper-iteration. Beside it the best constant learning rate of a grid,
with the start's momentum and scales. All are judged on initial weights that
neither has seen.

Prints a table, and writes results.json, schedules.png and curves.png to
--output_dir. (Maclaurin et al. 2015, section 3.1.)
"""

import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import flags

from examples.common import command_line, mnist, mnist_flags, steps

FLAGS = flags.FLAGS
flags.DEFINE_integer(
    "seed", 0, "Of the minibatches and the initial weights.", 0, 2**31 - 1
)
flags.DEFINE_integer("num_train", 10_000, "Training images.", lower_bound=1)
flags.DEFINE_integer("hidden_units", 50, "Of each of 3 layers.", lower_bound=1)
flags.DEFINE_integer("batch_size", 200, "Images in a step.", lower_bound=1)
flags.DEFINE_integer("num_steps", 100, "Inner steps T.", lower_bound=1)
flags.DEFINE_integer("hyper_iterations", 50, "Outer updates.", lower_bound=1)
flags.DEFINE_float(
    "hyper_learning_rate",
    0.12,
    "First learning rate of the outer Adam, on log learning rates, logit momenta "
    "and log scales; it decays to zero as a cosine.",
    lower_bound=0,
)
flags.DEFINE_float(
    "start_learning_rate", math.exp(-1), "The start's.", lower_bound=1e-6
)
flags.DEFINE_float("start_momentum", 0.5, "The start's.", 1e-3, 0.999)
flags.DEFINE_float(
    "start_scale", math.exp(-3), "Of initial weights and biases.", lower_bound=1e-6
)
flags.DEFINE_integer(
    "num_draws", 5, "Initial weights to judge each choice on.", lower_bound=1
)
flags.adopt_module_key_flags(mnist_flags)
flags.DEFINE_string("output_dir", "results/training_schedules", "Where to write.")
flags.DEFINE_integer("verbose", 1, "0: no progress bar.", 0, 2)


def load() -> mnist.Images:
    """The images, of which there is a batch at least."""
    command_line.check_batch_size(FLAGS.num_train)
    return mnist_flags.load(FLAGS.num_train)


def start(data: mnist.Images) -> None:
    """Says what is being done."""
    print("Trying constant learning rates, then learning schedules ...", flush=True)


def modules() -> tuple[steps.Experiment, steps.Report]:
    """Those of this example, which import TensorFlow."""
    from examples.training_schedules import experiment, report

    return experiment, report


if __name__ == "__main__":
    steps.run(load, start, modules)
