"""Submits a job, follows it and reads its results, with only `pika` and `redis`.

docs/rabbitmq.md documents the message, docs/redis.md the keys.
"""

import base64
import json
import os
import time
import uuid
import zlib

import pika
import redis

AMQP_URL = os.environ.get("LONGSHORE_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
REDIS_URL = os.environ.get("LONGSHORE_REDIS_URL", "redis://127.0.0.1:6379")
NAMESPACE = os.environ.get("LONGSHORE_NAMESPACE", "longshore")
ENDED = {"succeeded", "failed", "cancelled", "rejected"}


def submit(document):
    """Publishes a job document and returns its id once RabbitMQ has confirmed it."""
    job = document.setdefault("id", str(uuid.uuid4()))
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish(
        exchange=NAMESPACE,
        routing_key="jobs",
        body=json.dumps(document),
        properties=pika.BasicProperties(
            delivery_mode=2,  # persistent
            content_type="application/json",
            message_id=job,
        ),
        mandatory=True,
    )
    connection.close()
    return job


def follow(ledger, job):
    """Prints the job's progress until it has ended, and returns its last state."""
    key = f"{NAMESPACE}:{{{job}}}"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = ledger.hgetall(key)
        if status:
            done, total = status.get("done", 0), status.get("total", "?")
            print(status["state"], done, "of", total, flush=True)
            if status["state"] in ENDED:
                return status
        time.sleep(0.1)
    raise TimeoutError(f"job {job} did not end in time")


def results(ledger, job):
    """Yields the results in index order. Each field of the hash is the first index of a run."""
    packed = ledger.hgetall(f"{NAMESPACE}:{{{job}}}:results")
    for first in sorted(packed, key=int):
        for line in lines(packed[first]):
            yield json.loads(line)


def lines(run):
    """Returns the lines of a run of results.

    Long runs are compressed: `~COUNT BYTES TEXT`, or `~COUNT#k BYTES TEXT` from line k on.
    """
    if not run.startswith("~"):
        return run.splitlines()
    place, _, text = run.split(" ")
    count, _, skip = place[1:].partition("#")
    first = int(skip or 0)
    return zlib.decompress(base64.b64decode(text)).splitlines()[first : first + int(count)]


def main():
    ledger = redis.Redis.from_url(REDIS_URL, decode_responses=True)
    job = submit({"task": "sum", "split": {"by": "items", "items": [[1, 2], [3, 4], [5, 6]]}})
    status = follow(ledger, job)
    if status["state"] != "succeeded":
        raise SystemExit(f"job {job} {status['state']}: {status.get('error', '')}")
    print(json.dumps(list(results(ledger, job))))


if __name__ == "__main__":
    main()
