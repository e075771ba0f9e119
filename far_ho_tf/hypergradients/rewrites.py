"""What TensorFlow rewrites in a graph before it runs it without XLA."""

from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2
from tensorflow.python.eager import context

from far_ho_tf.hypergradients.forms import beside_gpu

# Those of Grappler's passes that a run on a CPU gains from: a square in the place of a
# power of two, and no operation for what is known beforehand. The others, and a second
# turn over all, take twice as long again, and no run is the faster by them.
_PASSES = ("pruning", "function", "constfold", "arithmetic", "dependency")


def few_rewrites():
    """Call options by which a function is rewritten once, by the passes that pay.

    Where there is a GPU, or where `tf.config.optimizer` has been told which to use by
    the time that a program is traced, they are the caller's own.
    """

    def fill(rewrites):
        rewrites.optimizers.extend(_PASSES)
        rewrites.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE

    return _options(fill)


def no_rewrites():
    """Call options by which a function runs as it is; else as `few_rewrites`."""

    def fill(rewrites):
        rewrites.disable_meta_optimizer = True

    return _options(fill)


def _options(fill):
    """The caller's, with other rewrites where those are not the caller's business."""
    now = context.context().function_call_options
    config = config_pb2.ConfigProto.FromString(now.config_proto_serialized)
    rewrites = config.graph_options.rewrite_options
    if beside_gpu() or rewrites.ByteSize():
        return now
    fill(rewrites)
    return context.FunctionCallOptions(now.executor_type, config)
