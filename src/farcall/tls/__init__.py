"""Which certificates a client accepts, and what to say about one that it does not. For HTTPS and AMQPS alike.

Knows nothing of HTTP, AMQP or services: `client` and `amqp` bring the connections, the service its own certificate.
"""

from farcall.tls.certificate import Certificate, certificate_from, peer_certificate
from farcall.tls.refusal import is_refusal, why_no_tls
from farcall.tls.trust import CA_VARIABLE, CaFileUnusable, Trust, find_trust

__all__ = [
    "CA_VARIABLE",
    "CaFileUnusable",
    "Certificate",
    "Trust",
    "certificate_from",
    "find_trust",
    "is_refusal",
    "peer_certificate",
    "why_no_tls",
]
