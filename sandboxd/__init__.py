"""sandboxd: the AWS Lambda model on one Linux server."""

__version__ = "0.1.0"
