"""A command task: reads a subtask as JSON from standard input, prints its result as JSON."""

import hashlib
import json
import sys

subtask = json.load(sys.stdin)
path = subtask["input"]
with open(path, "rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
json.dump({"file": path.rsplit("/", 1)[-1], "sha256": digest}, sys.stdout)
