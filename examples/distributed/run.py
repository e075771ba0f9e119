"""Tunes a network's training on several devices, or on several machines.

A dense network with Dropout is trained on minibatches of MNIST; its learning rate,
momentum and L2 penalty descend on the loss on validation images. Each batch is split
over the replicas of --strategy, and the hyperparameters come out as they do on one
device, up to rounding. A run that was killed goes on where it was when it is started
again with the same flags and --checkpoint_dir.

--strategy mirrored uses the GPUs of this machine or, without any, --replicas logical
devices of its CPU. --strategy multi_worker reads TF_CONFIG, as TensorFlow documents it;
--workers N starts N such processes on this machine, to try it. If one of them dies, the
others end with an error.

Prints what each hyper-iteration changed. Worker 0 writes results.json and curve.png to
--output_dir.
"""

import os
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import flags

from examples.common import command_line, mnist, mnist_flags, steps
from examples.distributed import launcher

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "strategy",
    "none",
    ["none", "one_device", "mirrored", "multi_worker"],
    "The tf.distribute strategy.",
)
flags.DEFINE_integer(
    "replicas", 2, "Logical devices for mirrored on a machine without GPUs.", 1, 64
)
flags.DEFINE_integer(
    "workers",
    None,
    "Start that many processes of --strategy multi_worker here, and wait for them.",
    1,
    64,
)
flags.DEFINE_enum(
    "mode",
    "reverse",
    ["reverse", "forward"],
    "The gradient mode: reverse, anew in each hyper-iteration; or forward, which goes "
    "on from hyper-iteration to hyper-iteration (RTHO).",
)
flags.DEFINE_integer("seed", 0, "Of weights, Dropout and batches.", 0, 2**31 - 1)
flags.DEFINE_integer("num_train", 5000, "Training images.", lower_bound=1)
flags.DEFINE_integer("num_validation", 5000, "Validation images.", lower_bound=1)
flags.DEFINE_integer("batch_size", 100, "Images in a batch, of all replicas.", 1)
flags.DEFINE_integer("num_steps", 50, "Inner steps T.", lower_bound=1)
flags.DEFINE_integer("hyper_iterations", 20, "Outer updates.", lower_bound=1)
flags.DEFINE_float("hyper_learning_rate", 0.1, "Of the outer Adam.", lower_bound=0)
flags.DEFINE_string(
    "checkpoint_dir", None, "Folder to save the run in, and to go on from."
)
flags.adopt_module_key_flags(mnist_flags)
flags.DEFINE_string("output_dir", "results/distributed", "Where to write.")
flags.DEFINE_integer("verbose", 1, "0: no progress bar.", 0, 2)


def load() -> mnist.Images:
    """The images, if the flags and TF_CONFIG go together."""
    if FLAGS.workers and FLAGS.strategy != "multi_worker":
        raise ValueError(
            "--workers is for --strategy multi_worker. Received: "
            f"--workers {FLAGS.workers} --strategy {FLAGS.strategy}"
        )
    if FLAGS["replicas"].present and FLAGS.strategy != "mirrored":
        raise ValueError(
            "--replicas is for --strategy mirrored. Received: "
            f"--replicas {FLAGS.replicas} --strategy {FLAGS.strategy}"
        )
    configured = "TF_CONFIG" in os.environ
    if FLAGS.strategy == "multi_worker" and configured:
        launcher.check_configuration()
    if FLAGS.strategy == "multi_worker" and not (configured or FLAGS.workers):
        raise ValueError(
            "--strategy multi_worker needs the environment variable TF_CONFIG, or "
            "--workers N to start N processes on this machine. Received neither."
        )
    if FLAGS.workers and configured and not launcher.is_worker():
        raise ValueError(
            "--workers starts all workers here; TF_CONFIG makes this process one of "
            "others. Received both."
        )
    command_line.check_batch_size(FLAGS.num_train)
    return mnist_flags.load(FLAGS.num_train, FLAGS.num_validation)


def start(data: mnist.Images) -> None:
    """Starts the workers that --workers asks for, unless this is one of them."""
    if FLAGS.workers and not launcher.is_worker():
        sys.exit(launcher.launch(FLAGS.workers))
    launcher.end_with_launcher()


def modules() -> tuple[steps.Experiment, steps.Report]:
    """Those of this example, which import TensorFlow."""
    from examples.distributed import experiment, report

    return experiment, report


def writes(results: dict[str, Any]) -> bool:
    """Whether this is the only worker, or the first one."""
    return results["worker"] in (None, "worker-0", "chief-0")


if __name__ == "__main__":
    steps.run(load, start, modules, writes)
