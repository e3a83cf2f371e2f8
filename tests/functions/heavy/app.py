import numpy
from lxml import etree


def handler(event, context):
    n = event["n"]
    matrix = numpy.arange(n * n, dtype=numpy.float64).reshape(n, n) + numpy.eye(n)
    product = matrix @ numpy.linalg.inv(matrix + numpy.eye(n) * n * n) @ matrix.T
    rows = "".join(f"<row>{value}</row>" for value in matrix.diagonal())
    root = etree.fromstring(f"<rows>{rows}</rows>")
    return {"trace": float(root.xpath("sum(row)")), "finite": bool(numpy.isfinite(product).all())}
