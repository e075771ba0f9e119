"""What TensorFlow rewrites in a graph before it runs it without XLA."""

from typing import Any

from tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.eager import context

from far_ho_tf.patches.kernels import beside_gpu

# Those of Grappler's passes that a run on a CPU gains from: a square in the place of a
# power of two, and no operation for what is known beforehand. The others, and a second
# turn over all, take twice as long again, and no run is the faster by them.
_PASSES = ("pruning", "function", "constfold", "arithmetic", "dependency")


def light_grappler() -> context.FunctionCallOptions:
    """Call options by which a function is rewritten once, by the passes that pay.

    Where there is a GPU, or where `tf.config.optimizer` has been told which to use by
    the time that a program is traced, they are the caller's own.
    """
    return _options(optimizers=_PASSES, meta_optimizer_iterations=RewriterConfig.ONE)


def no_grappler() -> context.FunctionCallOptions:
    """Call options by which a function runs as it is; else as `light_grappler`."""
    return _options(disable_meta_optimizer=True)


def _options(**rewrites: Any) -> context.FunctionCallOptions:
    """The caller's, with other rewrites where those are not the caller's business."""
    now = context.context().function_call_options  # pyright: ignore[reportOptionalMemberAccess]
    config = ConfigProto.FromString(now.config_proto_serialized)
    if beside_gpu() or config.graph_options.rewrite_options.ByteSize():
        return now
    config.graph_options.rewrite_options.CopyFrom(RewriterConfig(**rewrites))
    return context.FunctionCallOptions(now.executor_type, config)
