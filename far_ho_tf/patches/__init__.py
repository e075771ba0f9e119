"""What far_ho_tf puts right in TensorFlow and Keras, when it is imported.

Derivatives that are wrong or left out in silence, most of them second ones: those of a
training run go through the derivatives of its steps. The patches are global on purpose:
whoever calls the functions, Keras' layers or a user's own check by nested tapes, gets
the right ones. Values are those that they were; first derivatives, too, where they were
right. Each patch has a test that shows the fault in TensorFlow itself, so that one that
is mended there can go.
"""

import importlib
import pkgutil

from far_ho_tf.patches import registry

_MODULES = [
    importlib.import_module(f"{__name__}.{one.name}")
    for one in pkgutil.iter_modules(__path__)
]


def apply() -> None:
    """Puts those of every module here in their places, once."""
    registry.register()
    for module in _MODULES:
        if hasattr(module, "apply"):
            module.apply()
