"""AWS's recorded answers, played against the API: `pytest tests/aws --aws-snapshots DIR`."""
