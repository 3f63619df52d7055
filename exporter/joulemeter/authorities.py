"""Whom we believe when we ask over TLS."""

import ssl
from pathlib import Path


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Read authorities' certificates; blocking.

    Chain, dates and name are checked. What Python 3.13 began to ask besides (`VERIFY_X509_STRICT`: key identifiers and
    usages, as RFC 5280 has them) is not, for authorities of private networks and of clusters that were set up years ago
    often lack them (kubernetes-client/python#2394).

    Args:
        ca_file: a PEM file of those to be believed; None for those of the system.

    Raises:
        OSError: the file cannot be read, or holds no certificate (`ssl.SSLError` is one).
    """
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    if ca_file is not None:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
