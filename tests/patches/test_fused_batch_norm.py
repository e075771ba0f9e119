"""Batch normalization in one operation, against single ones; and its fault."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from tests.differences import derivatives, normals, unpatched

normal = normals()
FUSED = tf.compat.v1.nn.fused_batch_norm
IMAGES = normal(2, 2, 3, 2, dtype="float32")


def fused(**options):
    """In float32, which its kernel works in."""

    def function(x):
        x = tf.cast(x, tf.float32)
        images = IMAGES + tf.reshape(x[:2], [1, 1, 1, 2]) * IMAGES**2
        given = (x[6:8], x[8:10] ** 2 + 1) if not options.get("is_training") else ()
        outputs = FUSED(images, x[2:4], x[4:6], *given, **options)
        return tf.cast(tf.concat([tf.reshape(y, [-1]) for y in outputs], 0), "float64")

    return function


@pytest.mark.parametrize("patched", [True, False])
@pytest.mark.parametrize("is_training", [True, False])
def test_fused_batch_normalization(is_training, patched):
    """In all that it takes and gives, as what it does by single operations."""

    def plain(x):
        x = tf.cast(x, tf.float32)
        images = IMAGES + tf.reshape(x[:2], [1, 1, 1, 2]) * IMAGES**2
        mean, variance = x[6:8], x[8:10] ** 2 + 1
        if is_training:
            mean, variance = tf.nn.moments(images, [0, 1, 2])
        y = tf.nn.batch_normalization(images, mean, variance, x[4:6], x[2:4], 1e-3)
        if is_training:
            variance *= IMAGES[..., 0].size / (IMAGES[..., 0].size - 1)
        flat = [tf.reshape(one, [-1]) for one in (y, mean, variance)]
        return tf.cast(tf.concat(flat, 0), "float64")

    x = tf.constant(normal(10))
    with contextlib.nullcontext() if patched else unpatched("FusedBatchNormV3"):
        found, expected = (
            derivatives(function, x.numpy())[0](x)
            for function in (fused(is_training=is_training), plain)
        )
    close = [
        np.allclose(*pair, 1e-4, 1e-4) for pair in zip(found, expected, strict=True)
    ]
    assert close[0] and all(close) == patched
