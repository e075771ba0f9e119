"""Data hyper-cleaning: find wrong labels by tuning a weight per image.

Half of 5,000 MNIST training labels are wrong. A weight in [0, 1] per training
image, their sum at most --radius, is tuned by hypergradient descent so that
softmax regression, trained on the weighted images, does well on 5,000
validation images. Images whose weight ends below 0.001 are flagged and thrown
away; what is kept and the validation set train the final model.

Prints a table, and writes results.json, images.png and curves.png to
--output_dir. (Franceschi et al. 2017, section 5.1.)
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import flags

from examples.common import mnist, mnist_flags, steps

FLAGS = flags.FLAGS
flags.DEFINE_integer("seed", 0, "Which labels are wrong, and to what.", 0, 2**31 - 1)
flags.DEFINE_integer("num_train", 5000, "Training images.", lower_bound=2)
flags.DEFINE_integer("num_validation", 5000, "Validation images.", lower_bound=1)
flags.DEFINE_integer("num_steps", 100, "Inner steps T.", lower_bound=1)
flags.DEFINE_float("learning_rate", 0.5, "Inner learning rate.", lower_bound=0)
flags.DEFINE_float("momentum", 0.9, "Inner momentum.", 0, 1)
flags.DEFINE_integer("hyper_iterations", 30, "Outer updates.", lower_bound=1)
flags.DEFINE_float(
    "hyper_learning_rate",
    0.02,
    "First learning rate of the outer Adam; it decays to zero as a cosine.",
    lower_bound=0,
)
flags.DEFINE_float("radius", 200.0, "Largest sum of the weights, R.", lower_bound=0)
flags.DEFINE_integer(
    "final_steps", 200, "Steps of the final training, for all three.", lower_bound=1
)
flags.adopt_module_key_flags(mnist_flags)
flags.DEFINE_string("output_dir", "results/data_hyper_cleaning", "Where to write.")
flags.DEFINE_integer("verbose", 1, "0: no progress bar.", 0, 2)


def load() -> mnist.Images:
    """The images, their labels all right."""
    return mnist_flags.load(FLAGS.num_train, FLAGS.num_validation)


def start(data: mnist.Images) -> None:
    """Says what is being done."""
    print(f"Tuning a weight for each of {FLAGS.num_train} images ...", flush=True)


def modules() -> tuple[steps.Experiment, steps.Report]:
    """Those of this example, which import TensorFlow."""
    from examples.data_hyper_cleaning import experiment, report

    return experiment, report


if __name__ == "__main__":
    steps.run(load, start, modules)
