#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: the persistent XLA cache
# (--tf_xla_persistent_cache_directory) compares the names of functions, which
# tf.function numbers by all that a process has traced. The same function, traced after
# one more other function, is compiled again and gets an entry of its own.
#
# Seen: entries after three processes, of which the first two trace the same, and the
# third one function more: 1 1 2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0
cat > "$folder/script.py" << 'END'
import os
import sys

os.environ["TF_XLA_FLAGS"] = (
    f"--tf_xla_persistent_cache_directory={sys.argv[1]} "
    "--tf_xla_persistent_cache_device_types=CPU"
)
import tensorflow as tf

for _ in range(int(sys.argv[2])):
    tf.function(lambda x: x - 1.0).get_concrete_function(tf.TensorSpec([]))
compiled = tf.function(lambda x: tf.sin(x) + 2.0, jit_compile=True)
compiled(tf.constant([0.5, 1.0]))
print(len(os.listdir(sys.argv[1])))
END
mkdir "$folder/cache"
export TF_CPP_MIN_LOG_LEVEL=3
seen=$(for before in 0 0 1; do
  "$folder/venv/bin/python" "$folder/script.py" "$folder/cache" "$before" 2> /dev/null
done | xargs)
echo "entries: $seen"
test "$seen" = "1 1 2"
