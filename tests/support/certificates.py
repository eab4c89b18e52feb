"""Makes the certificates of a test: an authority, a server of it, a client of it, and another authority.

    certificates.py FOLDER HOST

FOLDER then holds ca.pem, other-ca.pem, server-cert.pem and server-key.pem (for HOST and no other name), client-cert.pem and
client-key.pem.
"""

import datetime
import pathlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

VALID = datetime.timedelta(days=30)


class Authority:
    def __init__(self, name: str) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.name = named(name)
        is_authority = x509.BasicConstraints(ca=True, path_length=0)
        self.certificate = signed(self.name, self.name, self.key, self.key, [(is_authority, True)])

    def issue(self, name: str, extensions: list[tuple[x509.ExtensionType, bool]]) -> tuple[bytes, bytes]:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        is_authority = x509.BasicConstraints(ca=False, path_length=None)
        certificate = signed(named(name), self.name, key, self.key, [(is_authority, True), *extensions])
        # Keys in the form that old servers read, too.
        form = serialization.PrivateFormat.TraditionalOpenSSL
        private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        return pem(certificate), private


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def signed(subject, issuer, key, by, extensions) -> x509.Certificate:
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - VALID).not_valid_after(now + VALID)
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(by, hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def main() -> int:
    folder, host = pathlib.Path(sys.argv[1]), sys.argv[2]
    authority, other = Authority("weir's test authority"), Authority("another authority")
    (folder / "ca.pem").write_bytes(pem(authority.certificate))
    (folder / "other-ca.pem").write_bytes(pem(other.certificate))
    for role, name, extensions in [
        ("server", host, [(x509.SubjectAlternativeName([x509.DNSName(host)]), False)]),
        ("client", "weir", []),
    ]:
        certificate, key = authority.issue(name, extensions)
        (folder / f"{role}-cert.pem").write_bytes(certificate)
        (folder / f"{role}-key.pem").write_bytes(key)
    return 0


if __name__ == "__main__":
    sys.exit(main())
