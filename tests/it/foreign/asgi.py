"""An application under uvicorn: it prints its port. It streams what it is sent, sends events, and echoes over WebSockets."""

import asyncio
import hashlib

import uvicorn


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        return await echo(scope, receive, send)
    if scope["type"] != "http":
        return
    headers = [(b"x-seen-method", scope["method"].encode()), (b"x-seen-target", scope["raw_path"])]
    if scope["path"] == "/events":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for number in range(20):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
            await asyncio.sleep(0.02)
        return await send({"type": "http.response.body", "body": b""})
    # What comes goes back at once, piece by piece: both directions are open at one time.
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    digest, more = hashlib.sha256(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
        digest.update(message["body"])
        await send({"type": "http.response.body", "body": message["body"], "more_body": True})
    await send({"type": "http.response.body", "body": digest.hexdigest().encode()})


async def echo(scope, receive, send):
    if (await receive())["type"] != "websocket.connect":
        return
    if scope["path"] == "/refused":
        return await send({"type": "websocket.close"})
    offered = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": "audio.v1" if "audio.v1" in offered else None})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            print("closed", message["code"], message.get("reason") or "", flush=True)
            return
        if (message.get("text") or "").startswith("close "):
            await send({"type": "websocket.close", "code": int(message["text"].split()[1]), "reason": "as asked"})
            print("closed", message["text"].split()[1], "as asked", flush=True)
            return
        kind = "text" if message.get("text") is not None else "bytes"
        await send({"type": "websocket.send", kind: message[kind]})


async def main():
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", ws_max_size=1 << 26, lifespan="off")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await running


asyncio.run(main())
