"""What a reverse run keeps of its states, and how it visits them backwards."""

import abc

import numpy as np
import tensorflow as tf

from far_ho_tf.hypergradients.checkpoints import binomial
from far_ho_tf.hypergradients.run import read, write


class Trajectory(abc.ABC):
    """The states of the steps from `first` to the last of a run.

    Args:
        run: A `Run`.
        first: Python integer.
    """

    def __init__(self, run, first):
        self._run = run
        self._first = first
        self._count = run.num_steps - first

    @abc.abstractmethod
    def record(self, step, state, logs):
        """Trains to the end.

        Args:
            step: Scalar int32 tensor: `first`, or less if a search ended before.
            state: The `State` before that step.
            logs: `Run.logs`.

        Returns:
            Number of steps made, final `State`, logs, and what was kept.
        """

    @abc.abstractmethod
    def replay(self, kept, choices, visit, carry):
        """Visits the steps from the last to the first.

        Args:
            kept: From `record`.
            choices: What the dynamics chose, by step: `TensorArray`s.
            visit: Callable(step, state, choice, carry) -> carry; where the run has a
                `split`, of a `Stored` trajectory also (new state, products).
            carry: Structure of tensors.

        Returns:
            The last step not visited (`first` − 1 unless a search ended before),
            and the carry.
        """

    def _backwards(self, body, carry, *others):
        """A loop over the steps; `carry` must be finite for a search to go on."""
        return tf.while_loop(
            lambda step, carry, *_: self._run.goes_on(step >= self._first, carry),
            body,
            (tf.constant(self._run.num_steps - 1), carry, *others),
            parallel_iterations=1,
            maximum_iterations=self._count,
        )


class Stored(Trajectory):
    """All states and, where the run has a `split`, the products that it keeps."""

    def record(self, step, state, logs):
        run, split = self._run, self._run.split

        def body(step, state, logs, states, products):
            index = step - self._first
            new_state, log, kept = run.step_and_products(step, state)
            logs, states = write(logs, step, log), write(states, index, state)
            return step + 1, new_state, logs, states, write(products, index, kept)

        states = run.arrays(state, self._count + (split is not None))
        products = run.arrays(split.kept if split else [], self._count)
        step, state, logs, states, products = tf.while_loop(
            lambda step, state, *_: run.goes_on(step < run.num_steps, state),
            body,
            (step, state, logs, states, products),
            parallel_iterations=1,
            maximum_iterations=self._count,
        )
        if split is not None:
            states = write(states, self._count, state)
        return step, state, logs, (states, products)

    def replay(self, kept, choices, visit, carry):
        states, products = kept

        def body(step, carry):
            index = step - self._first
            more = ()
            if self._run.split is not None:
                more = read(states, index + 1), read(products, index)
            state, choice = read(states, index), read(choices, step)
            return step - 1, visit(step, state, choice, carry, *more)

        return self._backwards(body, carry)


class Checkpointed(Trajectory):
    """Some of the states; the others are computed again from them.

    Args:
        run, first: See `Trajectory`.
        num_states: Python integer, the states that are kept at any time.

    Source: Griewank and Walther 2000; see `checkpoints.binomial`.
    """

    def __init__(self, run, first, num_states):
        super().__init__(run, first)
        plan = binomial(self._count, num_states)
        self._num_slots = plan.num_slots
        self._num_forward = plan.num_forward
        self._targets = tf.constant(first + plan.targets)
        self._slots = tf.constant(plan.slots)
        self._by_step = tf.constant(
            np.stack([plan.restore, first + plan.position, plan.begin, plan.end])
        )

    def record(self, step, state, logs):
        def move(step, state, logs):
            state, log = self._run.step(step, state)
            return state, write(logs, step, log)

        kept = write(self._run.arrays(state, self._num_slots + 1), 0, state)
        legs = (tf.constant(0), tf.constant(self._num_forward))
        return self._climb(move, legs, step, state, logs, kept)

    def replay(self, kept, choices, visit, carry):
        def move(step, state, nothing):
            return self._run.redo(step, state, read(choices, step)), nothing

        def body(step, carry, kept):
            slot, position, *legs = tf.unstack(self._by_step[:, step - self._first])
            _, state, _, kept = self._climb(
                move, legs, position, read(kept, slot), (), kept
            )
            carry = visit(step, state, read(choices, step), carry)
            return step - 1, carry, kept

        step, carry, _ = self._backwards(body, carry, kept)
        return step, carry

    def _climb(self, move, legs, step, state, logs, kept):
        """Advances along legs, and puts the state at the end of each into its slot."""

        def leg(index, step, state, logs, kept):
            target = self._targets[index]
            step, state, logs = self._run.loop(move, step, target, state, logs)
            return index + 1, step, state, logs, write(kept, self._slots[index], state)

        begin, end = legs
        _, *reached = tf.while_loop(
            lambda index, step, state, *_: self._run.goes_on(index < end, state),
            leg,
            (begin, step, state, logs, kept),
            parallel_iterations=1,
        )
        return reached
