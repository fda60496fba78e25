"""A WebSocket client of the websockets package that listens until it is told goodbye: listen.py URL CERTIFICATE TOKEN."""

import asyncio
import inspect
import ssl
import sys

import websockets

URL, CERTIFICATE, TOKEN = sys.argv[1:]
# The package has changed the name.
NEW = "additional_headers" in inspect.signature(websockets.connect.__init__).parameters
HEADERS = "additional_headers" if NEW else "extra_headers"


async def main():
    tls = ssl.create_default_context(cafile=CERTIFICATE)
    headers = {HEADERS: {"Authorization": f"Bearer {TOKEN}"}}
    async with websockets.connect(URL, ssl=tls, **headers) as socket:
        try:
            while True:
                await socket.recv()
        except websockets.exceptions.ConnectionClosed as closed:
            print(closed.rcvd.code, closed.rcvd.reason)


asyncio.run(main())
