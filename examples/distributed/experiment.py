"""The experiment: a network with Dropout, data parallel."""

import contextlib
import time
from typing import Any, NamedTuple

import keras
import tensorflow as tf

import far_ho_tf as far
from examples.common.mnist import Images


class Settings(NamedTuple):
    """What the flags of run.py set, by their names."""

    strategy: str
    replicas: int
    mode: str
    seed: int
    batch_size: int
    num_steps: int
    hyper_iterations: int
    hyper_learning_rate: float
    checkpoint_dir: str | None


def make_strategy(name: str, replicas: int) -> tf.distribute.Strategy | None:
    """The `tf.distribute` strategy of a name; `None` for "none"."""
    if name == "none":
        return None
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_physical_devices("GPU")
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")
    if gpus:
        return tf.distribute.MirroredStrategy()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * replicas,
    )
    return tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(replicas)])


def make_tuner(
    data: Images, settings: Settings, strategy: tf.distribute.Strategy | None
) -> far.HyperOptimizer:
    """The `HyperOptimizer`; variables are made within the strategy's scope."""
    keras.utils.set_random_seed(settings.seed)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = keras.Sequential(
            [
                keras.Input((784,)),
                keras.layers.Dense(100, "tanh"),
                keras.layers.Dropout(0.2, seed=settings.seed),
                keras.layers.Dense(10),
            ]
        )
        unit = far.constraints.Interval(0.0, 0.999)
        rate = far.Hyperparameter(0.02, name="learning_rate", constraint="non_neg")
        momentum = far.Hyperparameter(0.5, name="momentum", constraint=unit)
        log_penalty = far.Hyperparameter(-7.0, name="log_penalty")
        adam = keras.optimizers.Adam(settings.hyper_learning_rate / 10)
        slow = keras.optimizers.Adam(settings.hyper_learning_rate)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def training_loss(batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        images, labels = batch
        squares = sum(tf.reduce_sum(w**2) for w in model.trainable_variables)
        loss = cross_entropy(labels, model(images, training=True))
        return loss + tf.exp(log_penalty) * squares

    def validation_loss(batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        images, labels = batch
        return cross_entropy(labels, model(images))

    problem = far.BilevelProblem(
        inner_objective=training_loss,
        outer_objective=validation_loss,
        variables=model,
        dynamics=far.Momentum(rate, momentum),
        hyperparameters=[rate, momentum, log_penalty],
        inner_data=far.Batches(data.train, settings.batch_size, seed=settings.seed),
        outer_data=data.validation,
    )
    return far.HyperOptimizer(
        problem,
        far.ReverseHG() if settings.mode == "reverse" else far.ForwardHG(),
        [([rate, momentum], adam), (log_penalty, slow)],
        strategy,
    )


def compare(data: Images, settings: Settings, verbose: int = 1) -> dict[str, Any]:
    """Tunes the hyperparameters; goes on from a checkpoint where there is one.

    Returns:
        Dict: the history of `fit`, the hyperparameters at its end, the number of
        replicas, this worker's name (`None` where there is one), the number of
        hyper-iterations that had been made before, and seconds.
    """
    strategy = make_strategy(settings.strategy, settings.replicas)
    tuner = make_tuner(data, settings, strategy)
    folder = settings.checkpoint_dir
    begin = time.time()
    history = tuner.fit(
        settings.hyper_iterations,
        settings.num_steps,
        mode="restart" if settings.mode == "reverse" else "online",
        callbacks=[far.Checkpoint(folder)] if folder else [],
        verbose=verbose,
    )
    resolver = getattr(strategy, "cluster_resolver", None)
    several = settings.strategy == "multi_worker"
    return {
        "history": history.history,
        "hyperparameters": {
            variable.name: float(variable.numpy()) for variable in tuner.hyperparameters
        },
        "num_replicas": strategy.num_replicas_in_sync if strategy else 1,
        "worker": f"{resolver.task_type}-{resolver.task_id}" if several else None,
        "resumed_from": tuner.initial_iteration,
        "seconds": time.time() - begin,
    }
