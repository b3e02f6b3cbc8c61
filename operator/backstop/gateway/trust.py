"""Whose certificates are believed, whoever is asked: models, scorers, webhooks and a Redis alike."""

import ssl

from ..api.authorities import taken_as_declared


def trust_of(authorities: str | None) -> ssl.SSLContext:
    """How TLS is spoken with whom `authorities` (PEM), and nobody else, vouch for; None: the system's."""
    trust = ssl.create_default_context(cadata=authorities)
    return trust if authorities is None else taken_as_declared(trust)
