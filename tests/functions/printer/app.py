import logging
import sys

LOGGER = logging.getLogger()


def handler(event, context):
    LOGGER.setLevel("INFO")
    print("stdout: grüße ✓ 漢字")
    print("stderr: ошибка", file=sys.stderr)
    LOGGER.info("logging: %s", event.get("word", "none"))
    for number in range(event.get("lines", 0)):
        print(f"line {number} " + "." * event.get("width", 0))
