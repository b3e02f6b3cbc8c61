"""CA bundles: what is one, and in which one sentence everything else is refused."""

import ssl

import pytest
from cryptography import x509

from backstop.api.authorities import MOST_BYTES, AuthoritiesError, read_authorities
from tests.certificates import Authority

FIRST, SECOND = Authority("first"), Authority("second")
BEGIN = "-----BEGIN CERTIFICATE-----"


def subjects(bundle: str) -> list[str]:
    """Whom a bundle makes Python trust."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.load_verify_locations(cadata=bundle)
    return [str(x509.load_der_x509_certificate(found).subject.rdns[0].rfc4514_string()) for found in trust.get_ca_certs(binary_form=True)]


def test_a_bundle_is_read_with_what_tools_write_between_its_certificates() -> None:
    text = f"# Főtanúsítvány\n{FIRST.pem}\r\n\n# second\n{SECOND.pem.replace(chr(10), chr(13) + chr(10))}# end"
    assert subjects(read_authorities(text)) == ["CN=first", "CN=second"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (" \n", "it is empty; give the certificates of the authorities as PEM"),
        ("http://ca.example", f"it holds no certificate; give those of the authorities as PEM, each of which begins with `{BEGIN}`"),
        (FIRST.pem + FIRST.private_key, "it holds a private key, which many can read here; take it out, and use another key in its place"),
        (FIRST.pem + SECOND.pem[:300], "certificate 2 of 2 in it cannot be read; copy the whole of it again"),
        (SECOND.pem.replace("MII", "M\u0130I", 1), "certificate 1 of 1 in it cannot be read; copy the whole of it again"),
        (f"{BEGIN}\naGVsbG8=\n-----END CERTIFICATE-----", "certificate 1 of 1 in it cannot be read; copy the whole of it again"),
        (
            FIRST.pem + "#" * MOST_BYTES,
            "it takes 513 KiB, and may take 512; leave out authorities that the server does not need",
        ),
    ],
    ids=["empty", "no PEM", "a private key", "cut off", "another alphabet", "no certificate", "too large"],
)
def test_what_is_no_bundle_is_refused_in_one_sentence_that_holds_nothing_of_it(text: str, sentence: str) -> None:
    with pytest.raises(AuthoritiesError) as refused:
        read_authorities(text)
    assert str(refused.value) == sentence
