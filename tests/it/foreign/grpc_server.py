"""A gRPC server of the grpcio package: it prints its port. Messages are plain bytes."""

import time
from concurrent import futures

import grpc


def shout(message, context):
    context.send_initial_metadata([("x-first", "1")])
    context.set_trailing_metadata([("x-last", "2"), ("x-sum-bin", b"\x00\x01\xff")])
    return message.upper()


def fail(message, context):
    context.set_trailing_metadata([("x-last", "2")])
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the line is büsy 100%")


def count(message, context):
    for number in range(int(message)):
        yield b"%d" % number


def total(messages, context):
    return b"%d" % sum(len(message) for message in messages)


def echo(messages, context):
    for message in messages:
        yield message


def tick(messages, context):
    next(messages)
    for number in range(6):
        time.sleep(0.5)
        yield b"%d" % number


def wait(message, context):
    for _ in range(600):
        if not context.is_active():
            print("cancelled", flush=True)
            return b""
        time.sleep(0.1)
    return b"late"


def told(message, context):
    return repr(sorted(context.invocation_metadata())).encode()


def main():
    kinds = {
        "Shout": grpc.unary_unary_rpc_method_handler(shout),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
        "Tick": grpc.stream_stream_rpc_method_handler(tick),
        "Wait": grpc.unary_unary_rpc_method_handler(wait),
        "Told": grpc.unary_unary_rpc_method_handler(told),
    }
    server = grpc.server(futures.ThreadPoolExecutor(20), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("voice.Calls", kinds)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


main()
