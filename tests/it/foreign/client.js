// Clients of undici and ws: node client.js URL CERTIFICATE TOKEN. It fails unless all it says comes back.
"use strict";
const assert = require("assert");
const crypto = require("crypto");
const fs = require("fs");
const { once } = require("events");
const { Pool } = require("undici");
const WebSocket = require("ws");

const [url, certificate, token] = process.argv.slice(2);
const ca = fs.readFileSync(certificate);
const headers = { authorization: `Bearer ${token}` };

async function requests() {
    // Several requests on each connection at one time, as only HTTP/1.1's pipelining has it.
    const pool = new Pool(url, { connections: 4, pipelining: 8, connect: { ca } });
    const told = await (await pool.request({ path: "/told", method: "GET", headers })).body.json();
    assert.strictEqual(told.headers.authorization, undefined);
    assert.strictEqual(told.headers["x-callgate-account"], "acme");
    const answers = Array.from({ length: 200 }, async (_, number) => {
        const text = `${number} `.repeat(number + 1);
        const answer = await pool.request({ path: `/echo/${number}`, method: "PUT", headers, body: text });
        assert.strictEqual(answer.statusCode, 200);
        assert.strictEqual(await answer.body.text(), text);
    });
    await Promise.all(answers);
    // A body whose length nobody knows before, and trailers behind the answer.
    const pieces = Array.from({ length: 50 }, () => crypto.randomBytes(20_000));
    const asking = { ...headers, te: "trailers" };
    const streamed = await pool.request({ path: "/stream", method: "POST", headers: asking, body: pieces.values() });
    assert.deepStrictEqual(Buffer.from(await streamed.body.arrayBuffer()), Buffer.concat(pieces));
    assert.strictEqual(streamed.trailers["x-bytes"], "1000000");
    const refused = await pool.request({ path: "/told", method: "GET" });
    assert.strictEqual(refused.statusCode, 401);
    assert.strictEqual((await refused.body.json()).code, "unauthenticated");
    await pool.close();
}

async function call() {
    const socket = new WebSocket(url.replace("https", "wss") + "/call", { ca, headers, perMessageDeflate: { threshold: 0 }, maxPayload: 1 << 26 });
    await once(socket, "open");
    const said = async (message) => {
        socket.send(message);
        return (await once(socket, "message"))[0];
    };
    assert.match(socket.extensions, /permessage-deflate/);
    assert.match((await said("extensions")).toString(), /permessage-deflate/);
    for (const size of [0, 1, 125, 126, 65_535, 65_536, 16 << 20]) {
        const frame = crypto.randomBytes(size);
        assert.deepStrictEqual(await said(frame), frame, `${size} bytes`);
    }
    assert.strictEqual((await said("ä".repeat(100_000))).toString(), "ä".repeat(100_000));
    socket.ping("are you there");
    assert.strictEqual((await once(socket, "pong"))[0].toString(), "are you there");
    socket.send("close 4002");
    const [code, reason] = await once(socket, "close");
    assert.deepStrictEqual([code, reason.toString()], [4002, "as asked"]);

    const refused = new WebSocket(url.replace("https", "wss") + "/call", { ca, headers: { authorization: "Bearer wrong" } });
    const [, response] = await once(refused, "unexpected-response");
    assert.strictEqual(response.statusCode, 401);
    refused.on("error", () => {});
    refused.terminate();
}

requests().then(call).catch((error) => {
    console.error(error);
    process.exit(1);
});
