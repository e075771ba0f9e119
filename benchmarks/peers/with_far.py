"""far_ho_tf, as its users call it."""

import functools

import keras
import tensorflow as tf

import far_ho_tf as far
from peers.workloads import STATES_ALONE
from problems import plain_training


def configurations(workload):
    """Callables() -> (hypergradient, train), by name: first what users get unasked."""
    modes = {
        "reverse": [far.ReverseHG(), far.ReverseHG(keep_residuals=False)],
        "checkpoints": [
            far.ReverseHG(checkpointing="sqrt"),
            far.ReverseHG(checkpointing="sqrt", keep_residuals=False),
        ],
        "forward": [far.ForwardHG()],
    }
    named = zip(("auto", STATES_ALONE), modes[workload.mode], strict=False)
    return {name: functools.partial(_make, workload, mode) for name, mode in named}


def _make(workload, mode):
    problem = bilevel(workload)
    names = list(workload.hyperparameters)
    compiler = []

    def hypergradient():
        result = mode.compute(problem, workload.num_steps)
        compiler[:] = [result.status.compiler]
        arrays = [gradient.numpy() for gradient in result.hypergradients]
        return dict(zip(names, arrays, strict=True))

    trainers = {}

    def train():
        # By the same compiler; a run of `hypergradient` comes first.
        xla = compiler[0] == "xla"
        if xla not in trainers:
            trainers[xla] = plain_training(problem, workload.num_steps, xla)
        return trainers[xla]()

    return hypergradient, train


def bilevel(workload):
    """The `BilevelProblem` of a workload."""
    model = _model(workload)
    model.set_weights(workload.weights)
    values = {
        name: far.Hyperparameter(value, name=name)
        for name, value in workload.hyperparameters.items()
    }

    def losses(x, y):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x))

    def inner(batch):
        x, y, groups = batch
        each = losses(x, y)
        if "weights" in values:
            each *= tf.gather(tf.convert_to_tensor(values["weights"]), groups)
        loss = tf.reduce_mean(each)
        if "penalty" in values:
            squares = [tf.reduce_sum(w * w) for w in model.trainable_variables]
            loss += values["penalty"] * tf.add_n(squares)
        return loss

    train = tuple(map(tf.constant, (*workload.train, workload.groups)))
    data = train
    if workload.batches is not None:
        batches = tf.constant(workload.batches)

        def data(step):
            return tuple(tf.gather(part, batches[step]) for part in train)

    return far.BilevelProblem(
        inner,
        lambda batch: tf.reduce_mean(losses(*batch)),
        model,
        _dynamics(workload, values),
        list(values.values()),
        inner_data=data,
        outer_data=workload.validation,
    )


def _model(workload):
    if workload.network == "mlp":
        sizes = [kernel.shape[1] for kernel in workload.weights[::2]]
        layers = [keras.layers.Dense(size, "tanh") for size in sizes[:-1]]
    else:
        layers = [keras.layers.Reshape((28, 28, 1))]
        for kernel in workload.weights[:-2:2]:
            layers.append(
                keras.layers.Conv2D(
                    kernel.shape[3], 3, padding="same", activation="tanh"
                )
            )
            layers.append(keras.layers.MaxPooling2D(2))
        layers.append(keras.layers.Flatten())
    classes = workload.weights[-1].shape[0]
    features = workload.train[0].shape[1]
    return keras.Sequential(
        [keras.Input((features,)), *layers, keras.layers.Dense(classes)]
    )


def _dynamics(workload, values):
    if workload.dynamics == "descent":
        return far.GradientDescent(values.get("rate", 0.05))
    if workload.dynamics == "momentum":
        return far.Momentum(values["rate"], values["momentum"])
    return far.Adam(values["rate"], beta_1=values["beta_1"])
