"""A runtime client that streams what its handler yields.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming
"""

import base64
import http.client
import json
import os

BASE = "/2018-06-01/runtime/invocation"


def handler(event):
    yield b"one "
    yield json.dumps(event).encode()
    if event == "fail":
        raise ValueError("in the middle")


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def main():
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        api.request("GET", f"{BASE}/next")
        answer = api.getresponse()
        event, request_id = json.loads(answer.read()), answer.headers["Lambda-Runtime-Aws-Request-Id"]
        api.putrequest("POST", f"{BASE}/{request_id}/response")
        api.putheader("Lambda-Runtime-Function-Response-Mode", "streaming")
        api.putheader("Transfer-Encoding", "chunked")
        api.putheader("Content-Type", "text/plain")
        api.putheader("Trailer", "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body")
        api.endheaders()
        trailers = b""
        try:
            for piece in handler(event):
                api.send(chunk(piece))
        except ValueError as error:
            body = json.dumps({"errorType": "ValueError", "errorMessage": str(error)}).encode()
            trailers = b"Lambda-Runtime-Function-Error-Type: ValueError\r\n"
            trailers += b"Lambda-Runtime-Function-Error-Body: " + base64.b64encode(body) + b"\r\n"
        api.send(b"0\r\n" + trailers + b"\r\n")
        api.getresponse().read()


main()
