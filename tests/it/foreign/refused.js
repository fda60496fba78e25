// A client of ws whose call the upstream refuses: node refused.js URL CERTIFICATE TOKEN. It fails unless it is told 403.
"use strict";
const assert = require("assert");
const fs = require("fs");
const WebSocket = require("ws");

const [url, certificate, token] = process.argv.slice(2);
const socket = new WebSocket(url, { ca: fs.readFileSync(certificate), headers: { authorization: `Bearer ${token}` } });
socket.on("error", () => {});
socket.on("unexpected-response", (request, response) => {
    assert.strictEqual(response.statusCode, 403);
    request.destroy();
});
socket.on("open", () => process.exit(1));
