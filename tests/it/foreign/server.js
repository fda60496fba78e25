// An upstream of node and ws: it prints its port, tells what it was asked, streams bodies back, and echoes over WebSockets.
"use strict";
const http = require("http");
const { WebSocketServer } = require("ws");

const server = http.createServer((request, response) => {
    if (request.url === "/told") {
        response.setHeader("content-type", "application/json");
        response.end(JSON.stringify({ method: request.method, headers: request.headers, raw: request.rawHeaders }));
        return;
    }
    response.setHeader("trailer", "x-bytes");
    let bytes = 0;
    request.on("data", (piece) => {
        bytes += piece.length;
        response.write(piece);
    });
    request.on("end", () => {
        response.addTrailers({ "x-bytes": String(bytes) });
        response.end();
    });
});
// Audio may be compressed, which is between the two ends alone.
const sockets = new WebSocketServer({ server, perMessageDeflate: { threshold: 0 }, maxPayload: 1 << 26 });
sockets.on("connection", (socket) => {
    socket.on("message", (data, isBinary) => {
        const text = isBinary ? "" : data.toString();
        if (text === "extensions") {
            socket.send(socket.extensions);
        } else if (text.startsWith("close ")) {
            socket.close(Number(text.split(" ")[1]), "as asked");
        } else {
            socket.send(data, { binary: isBinary });
        }
    });
    socket.on("close", (code, reason) => console.log("closed", code, reason.toString()));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
