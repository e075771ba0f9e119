"""Real-time hyperparameter optimization (RTHO) of a 4-layer network.

From a poor start, learning rate, momentum and L2 penalty are tuned by
hypergradients while the network trains, in one pass (far.RealTimeModel). The
same network is trained with fixed values: Keras' defaults, the best of a grid,
the best of a random search of as many runs as fit into the time that RTHO took
(by the fastest way to make a plain run), and the poor start itself. Every
choice is made on the validation set, which is also what RTHO tunes on; the test
set is used at the end only.

Prints a table with the means over --num_seeds seeds, and writes results.json
and real_time.png to --output_dir. (After Franceschi et al. 2017, section 5.3,
whose TIMIT is not free: --dataset spoken_digit stands in for it.)
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import flags

from examples.common import command_line, mnist, steps
from examples.real_time import speech

FLAGS = flags.FLAGS
flags.DEFINE_integer("num_seeds", 3, "Seeds 0, 1, ...", lower_bound=1)
flags.DEFINE_integer("num_train", 5000, "Training images (MNIST).", lower_bound=2)
flags.DEFINE_integer(
    "num_validation", 5000, "Validation images (MNIST).", lower_bound=1
)
flags.DEFINE_integer("hidden_units", 100, "Of each of 3 layers.", lower_bound=1)
flags.DEFINE_integer("batch_size", 100, "Examples in a step.", lower_bound=1)
flags.DEFINE_integer("epochs", 20, "Of each plain run.", lower_bound=1)
flags.DEFINE_integer(
    "rtho_epochs",
    16,
    "Of RTHO: fewer, as its epochs take longer.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "update_every", 10, "Steps between updates of hyperparameters.", lower_bound=1
)
flags.DEFINE_float(
    "hyper_learning_rate",
    0.15,
    "First learning rate of the outer Adam, on log learning rate, logit momentum "
    "and log penalty; it decays to 0.3 of it as a cosine.",
    lower_bound=0,
)
flags.DEFINE_float("start_learning_rate", 1e-3, "The poor start's.", lower_bound=1e-6)
flags.DEFINE_float("start_momentum", 0.1, "The poor start's.", 1e-3, 0.9)
flags.DEFINE_float("start_l2", 1e-2, "The poor start's.", lower_bound=1e-7)
flags.DEFINE_enum(
    "dataset",
    "embedded",
    ["embedded", "mnist", "spoken_digit"],
    "The embedded 20,000 images of MNIST, the whole of it, or spoken digits; the "
    "latter two prepared by tensorflow-datasets in --data_dir.",
)
flags.DEFINE_string("data_dir", None, "Folder of the prepared data set.")
flags.DEFINE_string("output_dir", "results/real_time", "Where to write.")
flags.DEFINE_integer("verbose", 1, "0: does not tell of each seed.", 0, 1)


def load() -> mnist.Images | speech.Frames:
    """The images or the frames of speech, of which there is a batch at least."""
    data: mnist.Images | speech.Frames
    if FLAGS.dataset == "spoken_digit":
        data = speech.load(FLAGS.data_dir, seed=0)
    else:
        data = mnist.load(
            FLAGS.dataset, FLAGS.data_dir, FLAGS.num_train, FLAGS.num_validation
        )
    command_line.check_batch_size(len(data.train[0]))
    return data


def start(data: mnist.Images | speech.Frames) -> None:
    """Says what is being done."""
    print("Tracing the plain and the tuned training ...", flush=True)


def modules() -> tuple[steps.Experiment, steps.Report]:
    """Those of this example, which import TensorFlow."""
    from examples.real_time import experiment, report

    return experiment, report


if __name__ == "__main__":
    steps.run(load, start, modules)
