"""Fourier transforms, windows and frames."""

import keras
import tensorflow as tf

from derivatives.rows import POSITIVE, ZEROS, row, rows

_SPECTRUM = ("complex", "complex zeros")


def table():
    s = tf.signal
    k = keras.ops
    return [
        *rows("tf.signal", "fft ifft", (4,), points=_SPECTRUM),
        *rows("tf.signal", "fft2d ifft2d", (2, 3), points=("complex",)),
        *rows("tf.signal", "fft3d ifft3d", (2, 2, 2), points=("complex",)),
        row(
            "tf.signal.fftnd",
            (2, 3),
            single=True,
            fft_length=[2, 3],
            axes=[0, 1],
            points=("complex",),
        ),
        row(
            "tf.signal.ifftnd",
            (2, 3),
            single=True,
            fft_length=[2, 3],
            axes=[0, 1],
            points=("complex",),
        ),
        row("tf.signal.rfftnd", (2, 4), single=True, fft_length=[2, 4], axes=[0, 1]),
        row(
            "tf.signal.irfftnd",
            (2, 3),
            single=True,
            fft_length=[2, 4],
            axes=[0, 1],
            points=("complex",),
        ),
        *rows("tf.signal", "rfft", (4,), points=ZEROS),
        row("tf.signal.rfft (odd)", (5,)),
        row("tf.signal.rfft (padded)", (4,), call=lambda x: s.rfft(x, [6])),
        row(
            "tf.signal.rfft (power)",
            (4,),
            points=ZEROS,
            call=lambda x: tf.abs(s.rfft(x)) ** 2,
        ),
        row("tf.signal.rfft (magnitude)", (4,), call=lambda x: tf.abs(s.rfft(x))),
        *rows("tf.signal", "rfft2d", (2, 4)),
        *rows("tf.signal", "rfft3d", (2, 2, 4)),
        row("tf.signal.irfft", (3,), points=("complex",)),
        row(
            "tf.signal.irfft (odd)",
            (3,),
            points=("complex",),
            call=lambda x: s.irfft(x, [5]),
        ),
        row("tf.signal.irfft2d", (2, 3), points=("complex",)),
        row("tf.signal.irfft3d", (2, 2, 3), points=("complex",)),
        *(row(f"tf.signal.dct ({t})", (4,), type=t) for t in (1, 2, 3, 4)),
        *(row(f"tf.signal.idct ({t})", (4,), type=t) for t in (1, 2, 3, 4)),
        row("tf.signal.dct (orthonormal)", (4,), norm="ortho"),
        row("tf.signal.mdct", (8,), frame_length=4),
        row("tf.signal.inverse_mdct", (2, 2)),
        row("tf.signal.stft", (8,), frame_length=4, frame_step=2),
        row(
            "tf.signal.stft (power)",
            (8,),
            points=ZEROS,
            call=lambda x: tf.abs(s.stft(x, 4, 2)) ** 2,
        ),
        row(
            "tf.signal.stft (log of magnitude)",
            (8,),
            call=lambda x: tf.math.log(tf.abs(s.stft(x, 4, 2)) + 0.1),
        ),
        row(
            "tf.signal.inverse_stft",
            (2, 3),
            points=("complex",),
            frame_length=4,
            frame_step=2,
        ),
        row("tf.signal.frame", (6,), frame_length=3, frame_step=2),
        row(
            "tf.signal.frame (padded)", (6,), frame_length=4, frame_step=3, pad_end=True
        ),
        row("tf.signal.overlap_and_add", (2, 3), frame_step=2),
        row("tf.signal.fftshift", (4,)),
        row("tf.signal.ifftshift", (4,)),
        row("tf.signal.mfccs_from_log_mel_spectrograms", (2, 4)),
        row(
            "tf.signal.linear_to_mel_weight_matrix (times)",
            (5,),
            call=lambda x: tf.tensordot(
                x,
                s.linear_to_mel_weight_matrix(3, 5, 8000, 100.0, 3800.0, dtype=x.dtype),
                1,
            ),
        ),
        row(
            "tf.signal.kaiser_window (learned beta)",
            (),
            domain=POSITIVE,
            call=lambda b: s.kaiser_window(5, b, dtype=tf.float64),
        ),
        row(
            "tf.signal.kaiser_bessel_derived_window (learned beta)",
            (),
            domain=POSITIVE,
            call=lambda b: s.kaiser_bessel_derived_window(4, b, dtype=tf.float64),
        ),
        *(
            row(f"tf.signal.{name} (times)", (4,), call=_windowed(name))
            for name in ("hann_window", "hamming_window", "vorbis_window")
        ),
        row("keras.ops.fft", (4,), (4,), call=lambda x, y: k.fft((x, y))),
        row("keras.ops.fft2", (2, 3), (2, 3), call=lambda x, y: k.fft2((x, y))),
        row("keras.ops.ifft2", (2, 3), (2, 3), call=lambda x, y: k.ifft2((x, y))),
        row("keras.ops.rfft", (4,), points=ZEROS),
        row("keras.ops.irfft", (3,), (3,), call=lambda x, y: k.irfft((x, y))),
        row("keras.ops.stft", (8,), sequence_length=4, sequence_stride=2, fft_length=4),
        row(
            "keras.ops.stft (power)",
            (8,),
            points=ZEROS,
            call=lambda x: sum(part**2 for part in k.stft(x, 4, 2, 4)),
        ),
        row(
            "keras.ops.istft",
            (4, 3),
            (4, 3),
            call=lambda x, y: k.istft((x, y), 4, 2, 4),
        ),
        row(
            "keras.ops.kaiser (learned beta)",
            (),
            domain=POSITIVE,
            call=lambda b: k.kaiser(5, b),
        ),
        *(
            row(f"keras.ops.{name} (times)", (4,), call=_multiplied(name))
            for name in ("bartlett", "blackman", "hamming", "hanning")
        ),
    ]


def _windowed(name):
    def call(x):
        return getattr(tf.signal, name)(4, dtype=x.dtype) * x

    return call


def _multiplied(name):
    def call(x):
        return tf.cast(getattr(keras.ops, name)(4), x.dtype) * x

    return call
