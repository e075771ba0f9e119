"""Data hyper-cleaning: find wrong labels by tuning a weight per image.

Half of 5,000 MNIST training labels are wrong. A weight in [0, 1] per training
image, their sum at most --radius, is tuned by hypergradient descent so that
softmax regression, trained on the weighted images, does well on 5,000
validation images. Images whose weight ends below 0.001 are flagged and thrown
away; what is kept and the validation set train the final model.

Prints a table, and writes results.json, images.png and curves.png to
--output_dir. (Franceschi et al. 2017, section 5.1.)
"""

import numpy as np
from absl import flags

import command_line
import mnist_flags
import output

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


def main(argv):
    data, folder = command_line.begin(
        argv, lambda: mnist_flags.load(FLAGS.num_train, FLAGS.num_validation)
    )
    print(f"Tuning a weight for each of {FLAGS.num_train} images ...", flush=True)
    # Only now, since it takes seconds: missing data are reported at once.
    import cleaning_experiment as experiment
    import cleaning_report as report

    settings = experiment.Settings(
        num_steps=FLAGS.num_steps,
        learning_rate=FLAGS.learning_rate,
        momentum=FLAGS.momentum,
        hyper_iterations=FLAGS.hyper_iterations,
        hyper_learning_rate=FLAGS.hyper_learning_rate,
        radius=FLAGS.radius,
        final_steps=FLAGS.final_steps,
    )
    images, true = data.train
    given, wrong = experiment.corrupt(true, FLAGS.seed)
    cleaned = experiment.clean(
        (images, given), data.validation, wrong, settings, FLAGS.verbose
    )
    kept = cleaned["weights"] >= experiment.FLAG_BELOW
    print("Training on all, on the clean and on the kept images ...", flush=True)

    def accuracy(mask):
        parts = [(images[mask], given[mask]), data.validation]
        return experiment.final_accuracy(parts, data.test, settings)

    scores = experiment.score(cleaned["weights"], wrong)
    results = {
        "baseline": {"test_accuracy": accuracy(np.ones_like(wrong))},
        "oracle": {"test_accuracy": accuracy(~wrong)},
        "ours": {"test_accuracy": accuracy(kept), **scores},
        "seconds": cleaned["seconds"],
        "history": cleaned["history"],
        "flags": command_line.values(),
    }
    paths = [
        output.save(results, folder),
        report.draw_images(
            images, given, true, cleaned["weights"], cleaned["hypergradient"], folder
        ),
        report.draw_curves(cleaned["history"], int(wrong.sum()), folder),
    ]
    print(report.table(results))
    print("Wrote " + ", ".join(str(path) for path in paths))


if __name__ == "__main__":
    command_line.run(main)
