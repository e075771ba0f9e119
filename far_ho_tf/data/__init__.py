"""Replayable data of the inner and the outer problem."""

from far_ho_tf.data.array_sources import as_source as as_source
from far_ho_tf.data.batches import Batches as Batches
from far_ho_tf.data.source import Placeholder as Placeholder
from far_ho_tf.data.source import Source as Source
