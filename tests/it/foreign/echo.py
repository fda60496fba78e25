"""A WebSocket server of the websockets package: it prints its port, echoes, closes as it is told, and tells how it was closed."""

import asyncio

import websockets


async def echo(socket):
    try:
        async for message in socket:
            if isinstance(message, str) and message.startswith("close "):
                await socket.close(int(message.split()[1]), "as asked")
                return
            await socket.send(message)
    except websockets.exceptions.ConnectionClosed:
        pass
    finally:
        print("closed", socket.close_code, socket.close_reason, flush=True)


async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, subprotocols=["audio.v1"], max_size=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(main())
