"""Neighbours of the service: what the configuration names by an endpoint's address.

Room: service, beside the store. May: connect where the configuration says.
"""

from __future__ import annotations

from sandboxd.config import Config
from sandboxd.services.s3 import S3
from sandboxd.services.signed import Signed
from sandboxd.services.sns import Sns
from sandboxd.services.sqs import Sqs
from sandboxd.services.web import Web, trust

__all__ = ["Neighbours"]


class Neighbours:
    """What a configuration has beyond this host's own; without `[services] endpoint_url` there is only `web`.

    Made while the process may still read files. Raises OSError where certificates are needed and cannot be read.
    """

    def __init__(self, config: Config) -> None:
        self.web = Web(trust(config.ca_file) if any(endpoint.tls for endpoint in config.endpoints) else None)
        self.s3: S3 | None = None
        self.sqs: Sqs | None = None
        self.sns: Sns | None = None
        if config.services_endpoint is not None:
            key_id, secret = config.services_key_id or config.account_id, config.services_secret or "test"
            signed = Signed(self.web, config.services_endpoint, key_id, secret)
            self.s3, self.sqs, self.sns = S3(signed, config.region), Sqs(signed), Sns(signed)
