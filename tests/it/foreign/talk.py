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


SIZES = (0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20, 16 << 20)


def connect(token, **more):
    headers = {HEADERS: {"Authorization": f"Bearer {token}"}}
    tls = ssl.create_default_context(cafile=CERTIFICATE)
    return websockets.connect(URL, ssl=tls, subprotocols=["video.v9", "audio.v1"], max_size=None, ping_interval=None, **headers, **more)


def extensions(socket):
    headers = socket.response.headers if NEW else socket.response_headers
    return headers.get_all("Sec-WebSocket-Extensions")


async def with_pings(socket, pieces, pongs):
    for piece in pieces:
        yield piece
        # Between two fragments.
        pongs.append(await socket.ping())


async def talk(socket):
    for size in SIZES:
        data = os.urandom(size)
        # Three bytes each.
        text = "\u2603" * (size // 3) + "x" * (size % 3)
        for message in (data, text):
            await socket.send(message)
            assert await socket.recv() == message, size
            pieces = [message[at : at + size // 3 + 1] for at in range(0, len(message), size // 3 + 1)]
            if pieces:
                pongs = []
                await socket.send(with_pings(socket, pieces, pongs))
                assert await socket.recv() == message, size
                for pong in pongs:
                    await asyncio.wait_for(pong, 10)


async def main():
    async with connect(TOKEN, compression=None) as socket:
        assert not extensions(socket), extensions(socket)
        await talk(socket)
    async with connect(TOKEN) as socket:
        assert socket.subprotocol == "audio.v1", socket.subprotocol
        assert any("permessage-deflate" in name for name in extensions(socket)), extensions(socket)
        await talk(socket)
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
