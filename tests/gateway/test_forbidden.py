"""Addresses that are never called, however they are written."""

import pytest

from backstop.gateway.forbidden import is_forbidden


@pytest.mark.parametrize(
    ("address", "forbidden"),
    [
        ("169.254.169.254", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("64:ff9b::a83f:8110", True),
        ("64:ff9b::a00:1", False),
        ("2002:a9fe:a9fe::", True),
        ("2002:a83f:8110::1", True),
        ("2002:a00:1::", False),
        ("fe80::1%eth0", True),
        ("168.63.129.16", True),
        ("192.0.0.192", True),
        ("100.100.100.200", True),
        ("168.63.129.17", False),
        ("10.0.0.1", False),
    ],
)
def test_link_local_and_metadata_addresses_are_forbidden(address: str, forbidden: bool) -> None:
    assert is_forbidden(address) is forbidden
