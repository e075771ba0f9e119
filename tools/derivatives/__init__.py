"""Derivatives of TensorFlow's and Keras' operations, compared with differences."""
