"""A gRPC client of the grpcio package. Arguments: the gateway's port, its certificate, a token, and what to do; it prints JSON."""

import json
import queue
import sys
import time

import grpc

port, certificate, token, deed = sys.argv[1:]
credentials = grpc.ssl_channel_credentials(open(certificate, "rb").read())
channel = grpc.secure_channel("localhost:" + port, credentials, options=[("grpc.max_receive_message_length", -1)])
metadata = [("authorization", "Bearer " + token)] if token else []


def texts(pairs):
    return {name: value if isinstance(value, str) else value.hex() for name, value in pairs}


def ask(method, message=b"hello", timeout=20):
    """Code, details, answer, and both kinds of metadata of a unary call."""
    call = channel.unary_unary("/voice.Calls/" + method).future(message, timeout=timeout, metadata=metadata)
    answer = call.exception() is None and call.result().decode("latin1")
    return {
        "code": call.code().name,
        "details": call.details(),
        "answer": answer,
        "first": texts(call.initial_metadata()),
        "last": texts(call.trailing_metadata()),
    }


def streams():
    count = channel.unary_stream("/voice.Calls/Count")(b"1000", timeout=20, metadata=metadata)
    total = channel.stream_unary("/voice.Calls/Total")
    big = (b"x" * 100_000 for _ in range(200))
    return {
        "count": [int(number) for number in count],
        "total": int(total(big, timeout=20, metadata=metadata)),
        "code": count.code().name,
    }


def talk(pause):
    """Each message is sent when the answer to the one before is there; before the last there is a silence."""
    messages = queue.Queue()
    call = channel.stream_stream("/voice.Calls/Echo")(iter(messages.get, None), timeout=60, metadata=metadata)
    heard = []
    try:
        for number in range(100):
            if number == 99:
                time.sleep(pause)
            messages.put(b"%d" % number)
            heard.append(int(next(call)))
        messages.put(None)
        assert next(call, None) is None
    except grpc.RpcError:
        messages.put(None)
    return {"heard": heard, "code": call.code().name}


def listen():
    """One message, and then only the service speaks, although the client might."""
    messages = queue.Queue()
    messages.put(b"go")
    call = channel.stream_stream("/voice.Calls/Tick")(iter(messages.get, None), timeout=60, metadata=metadata)
    heard = []
    try:
        heard.extend(int(message) for message in call)
    except grpc.RpcError:
        pass
    messages.put(None)
    return {"heard": heard, "code": call.code().name}


def give_up():
    call = channel.unary_unary("/voice.Calls/Wait").future(b"", timeout=20, metadata=metadata)
    time.sleep(1)
    call.cancel()
    return {"code": call.code().name}


deeds = {
    "shout": lambda: ask("Shout"),
    "large": lambda: len(ask("Shout", b"x" * (8 << 20))["answer"]),
    "fail": lambda: ask("Fail"),
    "told": lambda: ask("Told"),
    "wait": lambda: ask("Wait", timeout=1),
    "wait-long": lambda: ask("Wait"),
    "unknown": lambda: ask("Unknown"),
    "streams": streams,
    "talk": lambda: talk(0),
    "talk-pause": lambda: talk(3),
    "listen": listen,
    "give-up": give_up,
}
print(json.dumps(deeds[deed]()), flush=True)
