"""The wait for a first hypergradient, beside JAX.

Each measurement is a process of its own; the tools take turns. Counted are CPU seconds
(of all threads) and wall seconds from the imports' end, with model, data and all that
the tool sets up, to the hypergradient as numbers. Both tools train the same network for
20 steps of momentum on batches of 64 by one compiled call: far_ho_tf by
`far.ReverseHG()`, JAX by `jax.jit` of the gradient through `lax.scan`.

Run by `.bench/bin/python benchmarks/first_result.py` (`make .bench/installed` makes
that environment). --cache measures far_ho_tf with a warm `far.compile_cache`, too;
--again what further calls in one process take; --checkout, of an earlier state of the
project (`git worktree add`), puts that into the turns.
"""

import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

ROOT = pathlib.Path(__file__).parents[1]
MODELS = ("mlp", "cnn", "lstm")
FLAGS = flags.FLAGS
flags.DEFINE_list("model", list(MODELS), f"Of {', '.join(MODELS)}, mobilenet.")
flags.DEFINE_integer("rounds", 5, "Measurements of each.", lower_bound=1)
flags.DEFINE_bool("cache", False, "Also with a warm compile cache.")
flags.DEFINE_bool("jax", True, "Beside JAX.")
flags.DEFINE_bool("again", False, "Also other calls in the same process.")
flags.DEFINE_string("checkout", None, "A folder with another state of the project.")
flags.DEFINE_string("child", None, "For the processes themselves: TOOL:MODEL.")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    if FLAGS.child:
        print(json.dumps(measure(*FLAGS.child.split(":"))))
        return
    if FLAGS.jax and importlib.util.find_spec("jax") is None:
        sys.exit("JAX is missing: run `make .bench/installed`, or give --nojax.")
    for model in FLAGS.model:
        tools = ["far"]
        if FLAGS.jax and model != "mobilenet":
            tools.append("jax")
        if FLAGS.checkout:
            tools.append("checkout")
        if FLAGS.cache:
            tools.append("far, warm")
        rows = {tool: [] for tool in tools}
        with tempfile.TemporaryDirectory() as cache:
            if FLAGS.cache:
                ask("far, warm", model, cache)  # Fills it.
            for _ in range(FLAGS.rounds):
                for tool in tools:
                    rows[tool].append(ask(tool, model, cache))
        report(model, rows)


def ask(tool, model, cache):
    """What a fresh process measures."""
    root = FLAGS.checkout if tool == "checkout" else ROOT
    name = "far" if tool != "jax" else "jax"
    flag = "--again" if FLAGS.again else "--noagain"
    environment = os.environ | {"PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("FAR_HO_TF_COMPILE_CACHE", None)
    if "warm" in tool:
        environment["FAR_HO_TF_COMPILE_CACHE"] = cache
    done = subprocess.run(
        [sys.executable, __file__, f"--child={name}:{model}", flag],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{tool} fails on {model}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def report(model, rows):
    ours = rows["far"]
    print(f"\n{model}: medians of {len(ours)} (lowest to highest)")
    for tool, found in rows.items():
        for key in found[0]:
            values = [one[key] for one in found]
            text = f"{statistics.median(values):8.3f}"
            text += f"  ({min(values):.3f} to {max(values):.3f})"
            if tool != "far" and key in ours[0]:
                ratio = statistics.median(
                    mine[key] / other[key]
                    for mine, other in zip(ours, found, strict=True)
                    if other[key]
                )
                text += f"  far / this: {ratio:.2f}"
            print(f"  {tool:<10} {key:<24}{text}", flush=True)


def measure(tool, model):
    first = (_far if tool == "far" else _jax)()
    begin = _now()
    again = first(model)
    found = _since("first", begin)
    if FLAGS.again:
        for name, call in again:
            begin = _now()
            call()
            found |= _since(name, begin)
    return found


def _now():
    return time.process_time(), time.perf_counter()


def _since(name, begin):
    cpu, wall = (now - before for now, before in zip(_now(), begin, strict=True))
    return {f"{name}, CPU s": cpu, f"{name}, wall s": wall}


def _data(model):
    import numpy as np

    random = np.random.RandomState(0)
    shape = {"mlp": (784,), "cnn": (28, 28, 1), "lstm": (16, 8)}.get(model, (64, 64, 3))
    x = random.rand(1000, *shape).astype("float32")
    return x, random.randint(0, 10, 1000).astype("int32")


def _far():
    import keras
    import tensorflow as tf

    import far_ho_tf as far

    tf.constant(1.0) + 1.0  # Starts the runtime, as the line of JAX does below.
    layers = keras.layers

    def network(model):
        if model == "mobilenet":
            return keras.applications.MobileNetV3Small(
                (64, 64, 3), weights=None, classes=10, classifier_activation=None
            )
        parts = {
            "mlp": [layers.Dense(100, activation="tanh")],
            "cnn": [
                layers.Conv2D(16, 3, activation="relu"),
                layers.MaxPooling2D(),
                layers.Conv2D(32, 3, activation="relu"),
                layers.MaxPooling2D(),
                layers.Flatten(),
            ],
            "lstm": [layers.LSTM(32)],
        }[model]
        return keras.Sequential(
            [keras.Input(_data(model)[0].shape[1:]), *parts, layers.Dense(10)]
        )

    def make(model):
        keras.utils.set_random_seed(0)
        net, data = network(model), _data(model)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        rate = far.Hyperparameter(0.05, name="rate")
        penalty = far.Hyperparameter(1e-3, name="penalty")
        kernel = net.trainable_variables[0]

        def inner(batch):
            x, y = batch
            value = loss(y, net(x, training=True))
            return value + penalty * tf.reduce_sum(kernel**2)

        def outer(batch):
            x, y = batch
            return loss(y, net(x, training=False))

        return far.BilevelProblem(
            inner_objective=inner,
            outer_objective=outer,
            variables=net,
            dynamics=far.Momentum(rate, 0.9),
            hyperparameters=[rate, penalty],
            inner_data=far.Batches(data, 32 if model == "mobilenet" else 64, seed=1),
            outer_data=tuple(part[:200] for part in data),
        )

    def compute(problem, num_steps):
        result = far.ReverseHG().compute(problem, num_steps=num_steps)
        return [float(gradient) for gradient in result.hypergradients]

    def first(model):
        steps = 3 if model == "mobilenet" else 20
        problem = make(model)
        compute(problem, steps)
        return [
            ("same", lambda: compute(problem, steps)),
            ("other num_steps", lambda: compute(problem, steps + 3)),
            ("equal problem", lambda: compute(make(model), steps)),
        ]

    return first


def _jax():
    import jax
    import jax.numpy as jnp
    import numpy as np

    jnp.ones(1).block_until_ready()

    def parameters(model, random):
        def dense(*shape):
            return (random.randn(*shape) / np.sqrt(shape[-2])).astype("float32")

        def zeros(size):
            return np.zeros(size, "float32")

        if model == "mlp":
            return [dense(784, 100), zeros(100), dense(100, 10), zeros(10)]
        if model == "cnn":
            kernels = dense(3, 3, 1, 16), zeros(16), dense(3, 3, 16, 32), zeros(32)
            return [*kernels, dense(800, 10), zeros(10)]
        return [dense(8, 128), dense(32, 128), zeros(128), dense(32, 10), zeros(10)]

    def convolved(x, kernel, bias):
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        window = (1, 2, 2, 1)
        x = jax.nn.relu(x + bias)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")

    def logits(model, w, x):
        if model == "mlp":
            return jnp.tanh(x @ w[0] + w[1]) @ w[2] + w[3]
        if model == "cnn":
            x = convolved(convolved(x, w[0], w[1]), w[2], w[3])
            return x.reshape(x.shape[0], -1) @ w[4] + w[5]

        def cell(carry, now):
            hidden, memory = carry
            gates = now @ w[0] + hidden @ w[1] + w[2]
            i, f, g, o = jnp.split(gates, 4, axis=-1)
            memory = jax.nn.sigmoid(f) * memory + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(memory), memory), None

        zeros = jnp.zeros((x.shape[0], 32))
        (hidden, _), _ = jax.lax.scan(cell, (zeros, zeros), jnp.swapaxes(x, 0, 1))
        return hidden @ w[3] + w[4]

    def loss(model, w, x, y):
        log = jax.nn.log_softmax(logits(model, w, x))
        return -jnp.mean(jnp.take_along_axis(log, y[:, None], axis=1))

    def first(model):
        x, y = map(jnp.asarray, _data(model))
        random = np.random.RandomState(1)
        start = [jnp.asarray(part) for part in parameters(model, random)]
        indices = jnp.asarray(random.randint(0, len(x), (20, 64)))

        def outer(hyperparameters, start):
            rate, penalty = hyperparameters

            def inner(w, x, y):
                return loss(model, w, x, y) + penalty * jnp.sum(w[0] ** 2)

            def step(state, rows):
                w, velocity = state
                gradient = jax.grad(inner)(w, x[rows], y[rows])
                velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
                w = jax.tree.map(lambda p, v: p - rate * v, w, velocity)
                return (w, velocity), None

            zeros = [jnp.zeros_like(part) for part in start]
            (w, _), _ = jax.lax.scan(step, (start, zeros), indices)
            return loss(model, w, x[:200], y[:200])

        compiled = jax.jit(jax.value_and_grad(outer))

        def call():
            values = jnp.float32(0.05), jnp.float32(1e-3)
            _, gradient = compiled(values, start)
            return [float(part) for part in gradient]

        call()
        return [("same", call)]

    return first


if __name__ == "__main__":
    if any(argument.startswith("--child=far") for argument in sys.argv):
        import far_ho_tf  # noqa: F401, for its cache, before absl begins.
    app.run(main)
