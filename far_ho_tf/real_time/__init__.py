"""A Keras model that tunes its hyperparameters while it trains."""

from far_ho_tf.real_time.model import RealTimeModel as RealTimeModel
