"""Sales rows in CSV to a report in CSV, by way of a database in /tmp."""

import csv
import io
import os
import sqlite3

DATABASE = "/tmp/report.db"


def handler(event, context):
    if os.path.exists(DATABASE):
        os.unlink(DATABASE)
    database = sqlite3.connect(DATABASE)
    try:
        database.execute("CREATE TABLE sales (region TEXT, amount REAL)")
        rows = csv.DictReader(io.StringIO(event["csv"]))
        database.executemany("INSERT INTO sales VALUES (:region, :amount)", rows)
        database.commit()
        report = database.execute(
            "SELECT region, COUNT(*), SUM(amount) FROM sales GROUP BY region ORDER BY region"
        ).fetchall()
    finally:
        database.close()
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(["region", "count", "total"])
    writer.writerows(report)
    return {"report": target.getvalue(), "bytes": os.path.getsize(DATABASE)}
