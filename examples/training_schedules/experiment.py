"""The experiment: everything about a training run learned.

Maclaurin et al. 2015, section 3.1: a learning rate and a momentum for each step
and each variable, and a scale for each variable's initial values, by the
hypergradient of the training loss at the last step.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far
from examples.common.mnist import Images, Part

# Constant learning rates α; (1 − γ) α is what multiplies the sum of gradients.
GRID = (0.7, 1.0, 1.4, 2.0, 2.4, 2.8, 3.2, 4.0)

# Hyper-iterations whose noise no tuning has seen.
UNSEEN = 1_000_000


class Settings(NamedTuple):
    """What the flags of run.py set, by their names."""

    hidden_units: int
    batch_size: int
    num_steps: int
    hyper_iterations: int
    hyper_learning_rate: float
    start_learning_rate: float
    start_momentum: float
    start_scale: float
    num_draws: int
    seed: int


class Outcome(NamedTuple):
    """What training comes to with one choice of hyperparameters.

    Attributes:
        train_loss, test_loss: After the last step, on all images: one for each
            draw of the initial weights.
        test_accuracy: Percent, one for each draw.
        curve: Loss on the minibatch of each step, the mean over the draws.
    """

    train_loss: list[float]
    test_loss: list[float]
    test_accuracy: list[float]
    curve: list[float]


class Training:
    """A network, and all that is to be learned about its training.

    Args:
        train, test: Pairs (images, labels).
        settings: `Settings`.
    """

    def __init__(self, train: Part, test: Part, settings: Settings) -> None:
        self._test = test
        self._settings = settings
        self._model = network(settings.hidden_units)
        variables = self._model.trainable_variables
        self.names = [variable.path.split("/", 1)[1] for variable in variables]
        shape = (settings.num_steps, len(variables))
        self._log_rates = far.Hyperparameter(tf.zeros(shape), name="log_rates")
        self._logit_momenta = far.Hyperparameter(tf.zeros(shape), name="logit_momenta")
        self._log_scales = far.Hyperparameter(
            tf.zeros([len(variables)]), name="log_scales"
        )
        self._rates = far.Schedule(self._log_rates, variables, transform=tf.exp)
        self._momenta = far.Schedule(
            self._logit_momenta, variables, transform=tf.sigmoid
        )
        self._problem = far.BilevelProblem(
            inner_objective=self._loss,
            outer_objective=self._loss,
            variables=self._model,
            dynamics=far.Momentum(self._scaled_rates(variables), self._momenta),
            hyperparameters=[self._log_rates, self._logit_momenta, self._log_scales],
            inner_data=far.Batches(train, settings.batch_size, seed=settings.seed),
            outer_data=train,
            initial_values=far.scaled_noise(
                [
                    (variable, lambda i=i: tf.exp(self._log_scales[i]))
                    for i, variable in enumerate(variables)
                ],
                seed=settings.seed,
                fresh=True,
            ),
        )
        # Compiling with XLA takes longer here than it saves.
        self._hypergradient = far.ReverseHG(jit_compile=False)
        self.begin(settings.start_learning_rate)

    def begin(self, learning_rate: float) -> None:
        """Sets the start, with one learning rate for all steps and variables."""
        momentum = self._settings.start_momentum
        shape = self._log_rates.shape
        self._log_rates.assign(tf.fill(shape, float(np.log(learning_rate))))
        logit = np.log(momentum) - np.log1p(-momentum)
        self._logit_momenta.assign(tf.fill(shape, float(logit)))
        self._log_scales.assign(
            tf.fill(self._log_scales.shape, float(np.log(self._settings.start_scale)))
        )

    def learn(self, verbose: int = 1) -> dict[str, Any]:
        """Descends on the training loss at the last step.

        Returns:
            A dict with the `history` of `HyperOptimizer.fit` and the `seconds`.
        """
        settings = self._settings
        decay = keras.optimizers.schedules.CosineDecay(
            settings.hyper_learning_rate, settings.hyper_iterations
        )
        optimizer = keras.optimizers.Adam(decay, beta_1=0.8)
        tuner = far.HyperOptimizer(self._problem, self._hypergradient, optimizer)
        start = time.perf_counter()
        history = tuner.fit(
            settings.hyper_iterations, num_steps=settings.num_steps, verbose=verbose
        ).history
        return {"history": history, "seconds": time.perf_counter() - start}

    def evaluate(self) -> Outcome:
        """Trains from `num_draws` initial weights that no tuning has seen.

        Returns:
            An `Outcome`.
        """
        rows = []
        for draw in range(self._settings.num_draws):
            result = self._hypergradient.compute(
                self._problem,
                self._settings.num_steps,
                start=far.Position(outer_step=UNSEEN + draw),
            )
            logits = self._model(self._test[0])
            right = np.argmax(logits, axis=1) == self._test[1]
            rows.append(
                [
                    float(result.outer_value),
                    float(cross_entropy(self._test[1], logits)),
                    100 * float(np.mean(right)),
                    result.inner_values.numpy(),
                ]
            )
        train_loss, test_loss, test_accuracy, curves = zip(*rows, strict=True)
        mean = np.mean(curves, axis=0).tolist()
        return Outcome(list(train_loss), list(test_loss), list(test_accuracy), mean)

    def schedules(self) -> dict[str, list]:
        """Learning rates and momenta of shape (T, variables), and the scales."""
        num_steps = self._settings.num_steps
        return {
            "learning_rates": self._rates.table(num_steps).tolist(),
            "momenta": self._momenta.table(num_steps).tolist(),
            "scales": np.exp(self._log_scales.numpy()).tolist(),
        }

    def _scaled_rates(
        self, variables: list[keras.Variable]
    ) -> list[tuple[keras.Variable, Callable[[tf.Tensor], tf.Tensor]]]:
        """α (1 − γ), with which a change of γ leaves the size of steps as it is.

        The paper's momentum has the factor in the velocity, which is the same
        where momentum does not change.
        """
        return [
            (variable, lambda t, i=i: self._rates(t)[i] * (1.0 - self._momenta(t)[i]))
            for i, variable in enumerate(variables)
        ]

    def _loss(self, batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        return cross_entropy(batch[1], self._model(batch[0]))


def network(hidden_units: int) -> keras.Model:
    """Three hidden layers of tanh, and logits."""
    hidden = [keras.layers.Dense(hidden_units, "tanh") for _ in range(3)]
    return keras.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(10)])


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The mean over the examples."""
    return tf.reduce_mean(
        keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    )


def center(data: Images) -> Images:
    """Subtracts the mean training image."""
    mean = data.train[0].mean(axis=0)
    return Images(*((images - mean, labels) for images, labels in data))


def compare(
    data: Images, settings: Settings, verbose: int = 1
) -> tuple[dict[str, Outcome], dict[str, Any]]:
    """The start, the best constant learning rate, and everything learned.

    Args:
        data: The images, which are centered here.
        settings: `Settings`.
        verbose: As in `HyperOptimizer.fit`.

    Returns:
        A pair: a mapping to the `Outcome`s, and a dict with the `grid` (pairs of
        learning rate and mean training loss), the `history` and `seconds` of
        `Training.learn`, and the `names` and `schedules` of what was learned.
    """
    data = center(data)
    training = Training(data.train, data.test, settings)
    outcomes = {"start": training.evaluate()}
    tried = {}
    for rate in GRID:
        training.begin(rate)
        tried[rate] = training.evaluate()
    losses = {rate: float(np.mean(tried[rate].train_loss)) for rate in GRID}
    outcomes["constant"] = tried[min(GRID, key=losses.get)]
    training.begin(settings.start_learning_rate)
    learned = training.learn(verbose)
    outcomes["learned"] = training.evaluate()
    details = {
        "grid": list(losses.items()),
        **learned,
        "names": training.names,
        "schedules": training.schedules(),
    }
    return outcomes, details
