"""Whose certificates are believed, whoever is asked: models, scorers, webhooks and a Redis alike."""

import ssl


def trust_of(authorities: str | None) -> ssl.SSLContext:
    """How TLS is spoken with whom `authorities` (PEM), and nobody else, vouch for; None: the system's."""
    trust = ssl.create_default_context(cadata=authorities)
    if authorities is not None:
        # As any other client takes them, whatever this Python thinks of how they were made; one in the middle of a chain, too.
        trust.verify_flags = (trust.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    return trust
