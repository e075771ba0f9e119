#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: each entry that is found in the persistent XLA cache, whole and
# in order, logs an error of its text-format parser, as the binary file is tried as text
# first. The call is right, and nothing is compiled.
#
# Seen: lines "Error parsing text-format tensorflow.XlaSerializedCacheEntry" of the
# process that fills the cache, and of the one that finds its entry there: 0 1.
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

compiled = tf.function(lambda x: x * 2.0 + 1.0, jit_compile=True)
print(compiled(tf.constant([0.5, 1.0])).numpy().tolist())
END
mkdir "$folder/cache"
seen=$(for turn in fills finds; do
  values=$("$folder/venv/bin/python" "$folder/script.py" "$folder/cache" 2> "$folder/log")
  test "$values" = "[2.0, 3.0]"
  grep -c "Error parsing text-format tensorflow.XlaSerializedCacheEntry" "$folder/log" || true
done | xargs)
entries=$(find "$folder/cache" -type f | wc -l)
echo "lines: $seen; entries: $entries"
test "$seen" = "0 1"
test "$entries" = 1
