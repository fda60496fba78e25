"""httpbin under waitress, which keeps connections, or werkzeug, which does not: httpbin_server.py NAME. It prints its port."""

import sys

import httpbin
import waitress
from werkzeug.serving import make_server

if sys.argv[1] == "waitress":
    server = waitress.create_server(httpbin.app, host="127.0.0.1", port=0, threads=8, clear_untrusted_proxy_headers=False)
    print(server.effective_port, flush=True)
    server.run()
else:
    server = make_server("127.0.0.1", 0, httpbin.app, threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()
