"""A served command: loads its imports once, then runs one subtask for each line of input."""

import json
import math
import sys

for line in sys.stdin:
    subtask = json.loads(line)
    point = subtask["input"]
    try:
        loss = (math.log10(point["lr"]) + 2) ** 2 + 0.01 * (point["seed"] % 3)
        reply = {"ok": {"lr": point["lr"], "seed": point["seed"], "loss": round(loss, 6)}}
    except ValueError as error:
        reply = {"error": str(error), "retry": False}
    print(json.dumps(reply), flush=True)
