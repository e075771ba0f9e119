"""Learns a representation from which few examples are enough: meta-learning.

In each episode a linear classifier of --ways classes starts from zero and makes
--num_steps steps of gradient descent on --shots examples of each class, through a
small convolutional network. The weights of that network, the representation, are
hyperparameters: they descend on the loss of other examples, the queries, after the
last step, averaged over --episodes new episodes in each hyper-iteration. Then new
classes are learned from few examples: of characters that no training episode had.

A class is a character turned by 0°, 90°, 180° or 270°. The characters are the
embedded digits of MNIST (3, 4 and 7 are held out), or Omniglot's (three alphabets are
held out), from omniglot_small.npz in --data_dir.

Prints a table with the accuracy on held-out classes, beside it that of the network
before it learned and that of raw pixels, both with the best learning rate of a grid
for the linear classifier. Writes results.json, curve.png and episodes.png to
--output_dir. (After Franceschi et al. 2018.)
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import flags

from examples.common import steps
from examples.hyper_representation import characters

FLAGS = flags.FLAGS
flags.DEFINE_integer(
    "seed", 0, "Of the initial network and the episodes.", 0, 2**31 - 1
)
flags.DEFINE_integer("ways", 5, "Classes in an episode.", lower_bound=2)
flags.DEFINE_integer("shots", 1, "Examples of a class to train on.", lower_bound=1)
flags.DEFINE_integer("queries", 5, "Other examples of a class.", lower_bound=1)
flags.DEFINE_integer("hyper_iterations", 400, "Outer updates.", lower_bound=1)
flags.DEFINE_integer("num_steps", 5, "Inner steps T.", lower_bound=1)
flags.DEFINE_integer("episodes", 8, "In each hyper-iteration.", lower_bound=1)
flags.DEFINE_float("learning_rate", 0.2, "Of the inner steps.", lower_bound=0)
flags.DEFINE_float(
    "outer_rate",
    2e-3,
    "First learning rate of the outer Adam; it decays to zero as a cosine.",
    lower_bound=0,
)
flags.DEFINE_integer("filters", 16, "Of the first convolution.", lower_bound=1)
flags.DEFINE_integer("features", 64, "That the network ends with.", lower_bound=1)
flags.DEFINE_integer("test_episodes", 600, "On held-out classes.", lower_bound=2)
flags.DEFINE_integer(
    "test_every",
    40,
    "Hyper-iterations between the points of the learning curve, of 200 episodes on "
    "held-out classes. Nothing is chosen by it.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "replicas",
    1,
    "Devices that the episodes are spread over, by tf.distribute.MirroredStrategy: "
    "the GPUs where there are as many, else parts of the CPU. 1: no strategy.",
    1,
    64,
)
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of omniglot_small.npz; without it, the embedded digits of MNIST.",
)
flags.DEFINE_string("output_dir", "results/hyper_representation", "Where to write.")
flags.DEFINE_integer("verbose", 1, "0: no progress bar.", 0, 2)


def load() -> characters.Classes:
    """The classes, of which there are enough for an episode."""
    classes = characters.load(FLAGS.data_dir)
    characters.check(classes, FLAGS.ways, FLAGS.shots, FLAGS.queries)
    return classes


def start(classes: characters.Classes) -> None:
    """Says what is being done."""
    print(
        f"{classes.name}: {len(classes.train)} classes for training, "
        f"{len(classes.test)} held out.",
        flush=True,
    )


def modules() -> tuple[steps.Experiment, steps.Report]:
    """Those of this example, which import TensorFlow."""
    from examples.hyper_representation import experiment, report

    return experiment, report


if __name__ == "__main__":
    steps.run(load, start, modules)
