class OrderRefused(Exception):
    pass


def check(order):
    raise OrderRefused(f"order {order} is refused: ünïcode ✓")


def handler(event, context):
    check(event["order"])
