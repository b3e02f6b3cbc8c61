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
        ("::169.254.169.254", True),
        ("::1", False),
        ("::10.0.0.1", False),
        ("64:ff9b:1:fffe::a9fe:a9fe", True),
        ("64:ff9b:1:a9fe:a9:fe00::", True),
        ("64:ff9b:1:12a9:fe:a9fe::", True),
        ("64:ff9b:1:1234:a9:fea9:fe00:0", True),
        ("64:ff9b:1:1234::a00:1", False),
        ("2001:0:a9fe:a9fe:8000:63bf:3fff:fdd2", True),  # Teredo: by a server there
        ("2001:0:4136:e378:8000:63bf:5601:5601", True),  # to a client there, whose bits are turned over
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
        ("2001:db8::5efe:169.254.169.254", True),  # ISATAP
        ("2001:db8::200:5efe:a83f:8110", True),
        ("2001:db8::5efe:10.0.0.1", False),
        ("2001:db8::169.254.169.254", False),
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
