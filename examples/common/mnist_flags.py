"""The flags of the examples on MNIST that say where the images come from."""

from absl import flags

from examples.common import mnist

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "dataset",
    "embedded",
    ["embedded", "mnist"],
    "The embedded 20,000 images of MNIST, or the whole of it, prepared by "
    "tensorflow-datasets in --data_dir.",
)
flags.DEFINE_string("data_dir", None, "Folder of the prepared data set.")


def load(num_train: int, num_validation: int = 0) -> mnist.Images:
    """`mnist.load` from where the flags say."""
    return mnist.load(FLAGS.dataset, FLAGS.data_dir, num_train, num_validation)
