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

from absl import flags

import command_line
import mnist
import output
import speech

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


def main(argv):
    data, folder = command_line.begin(argv, _load)
    # Only now, since it takes seconds: missing data are reported at once.
    import real_time_experiment as experiment
    import real_time_report as report

    settings = experiment.Settings(
        hidden_units=FLAGS.hidden_units,
        batch_size=FLAGS.batch_size,
        epochs=FLAGS.epochs,
        rtho_epochs=FLAGS.rtho_epochs,
        update_every=FLAGS.update_every,
        hyper_learning_rate=FLAGS.hyper_learning_rate,
        start=experiment.Values(
            FLAGS.start_learning_rate, FLAGS.start_momentum, FLAGS.start_l2
        ),
    )
    print("Tracing the plain and the tuned training ...", flush=True)
    trainers = [experiment.Trainer(data, settings, tune) for tune in (False, True)]
    once = experiment.seconds_of_keras(data, settings)
    outcomes = []
    for seed in range(FLAGS.num_seeds):
        outcomes.append(experiment.compare(settings, seed, *trainers, once))
        if FLAGS.verbose:
            found = outcomes[-1]
            print(
                f"Seed {seed}: RTHO {found['rtho'].accuracy:.2f} % in "
                f"{found['rtho'].seconds:.1f} s; grid {found['grid'].accuracy:.2f} % "
                f"in {found['grid'].seconds:.1f} s ({found['grid'].runs} runs)",
                flush=True,
            )
    results = report.summarize(outcomes, once, command_line.values())
    paths = [output.save(results, folder), report.draw(outcomes, folder)]
    print(report.table(results))
    print("Wrote " + ", ".join(str(path) for path in paths))


def _load():
    if FLAGS.dataset == "spoken_digit":
        data = speech.load(FLAGS.data_dir, seed=0)
    else:
        data = mnist.load(
            FLAGS.dataset, FLAGS.data_dir, FLAGS.num_train, FLAGS.num_validation
        )
    command_line.check_batch_size(len(data.train[0]))
    return data


if __name__ == "__main__":
    command_line.run(main)
