"""httpbin's own tests over real connections: httpbin_suite.py FOLDER URL [CERTIFICATE]. Prints each test's outcome as JSON.

The tests speak to a test client, which calls the application; here what it would call with goes to a server instead.
"""

import http.client
import json
import ssl
import sys
import unittest
from urllib.parse import urlsplit

import werkzeug.test
from werkzeug.datastructures import Headers

FOLDER, URL, *CERTIFICATE = sys.argv[1:]
SERVER = urlsplit(URL)


def over_http(application, environ, buffered=False):
    if SERVER.scheme == "https":
        tls = ssl.create_default_context(cafile=CERTIFICATE[0])
        connection = http.client.HTTPSConnection(SERVER.hostname, SERVER.port, context=tls, timeout=60)
    else:
        connection = http.client.HTTPConnection(SERVER.hostname, SERVER.port, timeout=60)
    target = environ["REQUEST_URI"]
    connection.putrequest(environ["REQUEST_METHOD"], target, skip_host=True, skip_accept_encoding=True)
    if "HTTP_HOST" not in environ:
        connection.putheader("Host", environ["SERVER_NAME"])
    for name, value in environ.items():
        # A name of nothing is no header of HTTP.
        if name.startswith("HTTP_") and name != "HTTP_":
            connection.putheader(name[5:].replace("_", "-").title(), value)
    # The tests ask for http://localhost, however that is carried there; the gateway trusts this client to say so.
    if "HTTP_X_FORWARDED_PROTO" not in environ:
        connection.putheader("X-Forwarded-Proto", environ["wsgi.url_scheme"])
    body = environ["wsgi.input"].read()
    if environ.get("CONTENT_TYPE"):
        connection.putheader("Content-Type", environ["CONTENT_TYPE"])
    is_chunked = environ.get("HTTP_TRANSFER_ENCODING") == "chunked"
    if not is_chunked and (body or environ.get("CONTENT_LENGTH")):
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders([body] if is_chunked and body else body, encode_chunked=is_chunked)
    response = connection.getresponse()
    data = response.read()
    headers = Headers()
    for name, value in response.getheaders():
        # How a body was framed on its way is not for whoever has read it.
        if name.lower() not in ("transfer-encoding", "connection"):
            headers.add(name, value)
    status = f"{response.status} {response.reason}"
    connection.close()
    return iter([data]), status, headers


class Outcomes(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.of = {}
        self.why = {}

    def note(self, test, outcome, error=None):
        name = test.id().split(".")[-1]
        self.of.setdefault(name, outcome)
        if error:
            self.why[name] = self._exc_info_to_string(error, test)[-600:]

    def addSuccess(self, test):
        self.note(test, "passed")

    def addFailure(self, test, error):
        self.note(test, "failed", error)

    def addError(self, test, error):
        self.note(test, "failed", error)

    def addSkip(self, test, reason):
        self.note(test, "skipped")


werkzeug.test.run_wsgi_app = over_http
suite = unittest.defaultTestLoader.discover(FOLDER, pattern="test_*.py", top_level_dir=FOLDER)
outcomes = Outcomes()
suite.run(outcomes)
print(json.dumps({"of": outcomes.of, "why": outcomes.why}))
