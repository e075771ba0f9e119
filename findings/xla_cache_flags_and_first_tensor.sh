#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: TF_XLA_FLAGS is read with the first tensor, not with the first
# function that XLA compiles. A persistent cache that is named after `tf.constant(1)` is
# ignored without a word; named after `import tensorflow`, before any tensor, it is used.
#
# Seen: entries where the flags are set before and after the first tensor: 1 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0
cat > "$folder/script.py" << 'END'
import os
import sys

import tensorflow as tf

if sys.argv[2] == "after":
    tf.constant(1)
os.environ["TF_XLA_FLAGS"] = (
    f"--tf_xla_persistent_cache_directory={sys.argv[1]} "
    "--tf_xla_persistent_cache_device_types=CPU"
)
tf.function(lambda x: tf.sin(x) + 2.0, jit_compile=True)(tf.constant([0.5, 1.0]))
print(len(os.listdir(sys.argv[1])))
END
export TF_CPP_MIN_LOG_LEVEL=3
seen=$(for when in before after; do
  mkdir "$folder/$when"
  "$folder/venv/bin/python" "$folder/script.py" "$folder/$when" "$when" 2> /dev/null
done | xargs)
echo "entries: $seen"
test "$seen" = "1 0"
