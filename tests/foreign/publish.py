"""A foreign AMQP client for tests: executes each line of JSON on standard input and answers with a line.

`{"publish": {"exchange", "key", "body", "properties"}}` answers "kept", "returned" (no queue takes it)
or "refused: …"; `{"take": QUEUE}` answers the next message of the queue, `{"body", "message_id",
"headers"}`, or null. Bodies, properties and names of headers are bytes, written as strings of the
characters U+0000 to U+00FF. The end of the input ends the program.
"""

import json
import os
import sys

import pika


def connect():
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["LONGSHORE_AMQP_URL"]))
    channel = connection.channel()
    channel.confirm_delivery()
    return channel


def bytes_of(text):
    return text.encode("latin-1")


def text_of(value):
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return None if value is None else value.encode().decode("latin-1")


def property_of(value):
    if isinstance(value, dict):
        return {bytes_of(name): value for name, value in value.items()}
    return bytes_of(value) if isinstance(value, str) else value


def publish(channel, exchange, key, body, properties):
    properties = {name: property_of(value) for name, value in properties.items()}
    try:
        channel.basic_publish(
            exchange=exchange,
            routing_key=key,
            body=bytes_of(body),
            properties=pika.BasicProperties(**properties),
            mandatory=True,
        )
        return "kept"
    except pika.exceptions.UnroutableError:
        return "returned"
    except pika.exceptions.ChannelClosedByBroker as closed:
        return f"refused: {closed.reply_text}"


def take(channel, queue):
    method, properties, body = channel.basic_get(queue, auto_ack=True)
    if method is None:
        return None
    message_id, headers = text_of(properties.message_id), properties.headers or {}
    return {"body": body.decode("latin-1"), "message_id": message_id, "headers": headers}


def main():
    channel = connect()
    for line in sys.stdin:
        request = json.loads(line)
        if channel.is_closed:
            channel = connect()
        if "take" in request:
            answer = take(channel, request["take"])
        else:
            answer = publish(channel, **request["publish"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
