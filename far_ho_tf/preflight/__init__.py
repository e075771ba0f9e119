"""What is found out about a problem before its loops are compiled."""

from far_ho_tf.preflight.report import Report as Report
from far_ho_tf.preflight.report import inspect as inspect
