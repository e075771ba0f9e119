"""Functions in the place of a module's: for good, and for the time of a block."""

import math
import types

import pytest
import tensorflow as tf

from far_ho_tf.patches.replacing import replace, replaced, replacements
from tools.private_names import private_names


@pytest.fixture
def module():
    made = types.ModuleType("some_module")
    made.root = math.sqrt
    return made


def test_within_a_block(module):
    with replaced({(module, "root"): lambda x: -x}):
        assert module.root(4) == -4
        with replaced({(module, "root"): lambda x: 2 * x}):
            assert module.root(4) == 8
        assert module.root(4) == -4
    assert module.root is math.sqrt
    assert replacements()["some_module.root"] == "traces"


def test_an_error_puts_it_back(module):
    with pytest.raises(KeyError), replaced({(module, "root"): lambda x: -x}):
        raise KeyError
    assert module.root is math.sqrt


def test_what_is_not_there_is_no_place(module):
    with pytest.raises(AttributeError), replaced({(module, "missing"): math.sqrt}):
        pass
    assert not hasattr(module, "missing")


def test_for_good(module):
    replace(module, "sign", math.copysign)
    assert module.sign(2, -1) == -2
    assert replacements()["some_module.sign"] == "always"


def test_what_the_import_replaces_is_told():
    names = replacements()
    assert {"tensorflow.square", f"{tf.nn.__name__}.ctc_loss"} <= set(names)
    assert names["tensorflow.square"] == "always"


def test_private_names():
    source = """
from tensorflow.python.eager import record
from tensorflow import nn

class A:
    def f(self, other):
        return self._own, other._its, other._own, other._replace(a=1), nn.__name__
"""
    found = set(private_names(source))
    assert found == {"tensorflow.python.eager.record", "other._its"}


def test_what_stands_there_afterwards_may_be_given(module):
    """Of two threads, the second would put back what the first had put there."""
    place, own = (module, "root"), {(module, "root"): math.sqrt}
    first = replaced({place: lambda x: -x}, own)
    second = replaced({place: lambda x: 2 * x}, own)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert module.root is math.sqrt
