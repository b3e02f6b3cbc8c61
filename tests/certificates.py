"""Certificates for servers and clients on the loopback."""

import datetime
import ipaddress
import secrets
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def make_certificate(folder: Path, *, names: list[str]) -> None:
    """A self-signed certificate for 127.0.0.1 under each of `names`, and the key of the first as `<name>.key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    for file in names:
        (folder / file).write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / f"{names[0]}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """Vouches for servers on the loopback, and for authorities below it. `above`: who vouches for it; None: itself.

    `by_the_book`: with the extensions that RFC 5280 asks for, which many a company's lack, and which Python asks for from 3.13 on.
    """

    def __init__(self, name: str, *, above: "Authority | None" = None, by_the_book: bool = False) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._by_the_book = by_the_book
        authority = x509.BasicConstraints(ca=True, path_length=None)
        builder = _named(self._name, key=self._key).add_extension(authority, critical=True)
        if by_the_book:
            builder = builder.add_extension(_SIGNS_CERTIFICATES, critical=True)
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        self._certificate = (above or self)._sign(builder)

    @property
    def pem(self) -> str:
        """Its certificate."""
        return self._certificate.public_bytes(Encoding.PEM).decode()

    @property
    def private_key(self) -> str:
        """What nobody else should have."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def server(self, folder: Path, *, address: str = "127.0.0.1", chain: str = "") -> ssl.SSLContext:
        """How a server speaks TLS that this authority vouches for, as the one at `address`. `chain`: certificates that it sends too."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _named(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")]), key=key)
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        certificate = self._sign(builder.add_extension(names, critical=False)).public_bytes(Encoding.PEM).decode()
        file = folder / f"{secrets.token_hex(4)}.pem"
        file.write_text(certificate + chain + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file)
        return context

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        if self._by_the_book:
            of = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            builder = builder.add_extension(of, critical=False)
        return builder.issuer_name(self._name).sign(self._key, hashes.SHA256())


def _named(name: x509.Name, *, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
