"""A WebSocket client of the websockets package: talk.py URL CERTIFICATE TOKEN. It fails unless all it says comes back."""

import asyncio
import inspect
import os
import ssl
import sys

import websockets

URL, CERTIFICATE, TOKEN = sys.argv[1:]
# The package has changed the name.
NEW = "additional_headers" in inspect.signature(websockets.connect.__init__).parameters
HEADERS = "additional_headers" if NEW else "extra_headers"


def connect(token):
    headers = {HEADERS: {"Authorization": f"Bearer {token}"}}
    tls = ssl.create_default_context(cafile=CERTIFICATE)
    return websockets.connect(URL, ssl=tls, subprotocols=["video.v9", "audio.v1"], max_size=None, **headers)


async def main():
    async with connect(TOKEN) as socket:
        assert socket.subprotocol == "audio.v1", socket.subprotocol
        for size in (0, 1, 125, 126, 65_535, 65_536, 5_000_000):
            frame = os.urandom(size)
            await socket.send(frame)
            assert await socket.recv() == frame, size
        await socket.send("text")
        assert await socket.recv() == "text"
        await socket.send(["in ", "several ", "fragments"])
        assert await socket.recv() == "in several fragments"
        await asyncio.wait_for(await socket.ping(b"are you there"), 10)
        await socket.close(4001, "the client is done")
    async with connect(TOKEN) as socket:
        await socket.send("close 4002")
        try:
            await socket.recv()
            raise AssertionError("the server did not close")
        except websockets.exceptions.ConnectionClosed:
            assert (socket.close_code, socket.close_reason) == (4002, "as asked"), socket.close_code
    try:
        async with connect("wrong"):
            raise AssertionError("a wrong token was let in")
    except websockets.exceptions.InvalidHandshake as refusal:
        assert "401" in str(refusal), refusal


asyncio.run(main())
