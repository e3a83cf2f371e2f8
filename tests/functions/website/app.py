import base64
import time

PAGE = "<!doctype html><title>ünïcode ✓</title>"


def handler(event, context):
    match event["rawPath"]:
        case "/page":
            headers = {"Content-Type": "text/html; charset=utf-8", "Connection": "close", "Content-Length": "3"}
            return {"statusCode": 200, "headers": headers, "cookies": ["a=1; HttpOnly", "b=2"], "body": PAGE}
        case "/image":
            body = base64.b64encode(bytes(range(256))).decode()
            return {"statusCode": 200, "headers": {"Content-Type": "image/png"}, "body": body, "isBase64Encoded": True}
        case "/elsewhere":
            return {"statusCode": 302, "headers": {"Location": "/page"}}
        case "/split":
            return {"statusCode": 200, "headers": {"X-A": "b\r\nSet-Cookie: c=d\r\n\r\n<script>"}}
        case "/raise":
            raise ValueError("a secret")
        case "/slow":
            time.sleep(60)
        case "/size":
            body = event["body"]
            return len(base64.b64decode(body) if event["isBase64Encoded"] else body)
    return event
