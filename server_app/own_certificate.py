"""Make an authority and a certificate for a server that was given none, with the package cryptography.

The authority signs for this one server; its hash stands in the join link, so that devices trust it and no
other. It is kept as long as the run. The certificate is signed anew when less than half of its time is
left, or when the machine has other addresses; a server that runs takes what lies there from its next
connection on.
"""

from __future__ import annotations

import datetime
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gkt_core.errors import InputError
from gkt_core.files import write_atomically

_DAY = datetime.timedelta(days=1)
# The clock of a board without a battery lags behind until it has found the time.
_BEFORE, _AUTHORITY_AFTER, _SERVER_AFTER = 365 * _DAY, 7300 * _DAY, 730 * _DAY
_AUTHORITY, _SERVER = "authority", "server"


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """What the server shows, and who signed it.

    Attributes:
        certificate: File of the chain (PEM).
        key: File of its key (PEM).
        authority: Certificate (PEM) of the authority.
    """

    certificate: Path
    key: Path
    authority: bytes

    @property
    def files(self) -> tuple[Path, Path]:
        """Certificate and key."""
        return self.certificate, self.key


def own_certificate(folder: Path, names: Iterable[str]) -> OwnCertificate:
    """Give the certificate of a run's server, made now or before.

    Args:
        folder: Of the run.
        names: Host names and addresses that it is to be good for.

    Raises:
        InputError: What lies in the folder cannot be used.
    """
    try:
        authority, authority_key = _authority(folder)
        wanted = sorted(set(names))
        paths = folder / f"{_SERVER}.pem", folder / f"{_SERVER}.key"
        if not _is_good(paths, authority, wanted):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _signed(authority, authority_key, key, wanted)
            write_atomically(paths[1], _key_bytes(key), mode=0o600)
            write_atomically(paths[0], _pem(certificate) + _pem(authority), mode=0o600)
    except ValueError as error:
        raise InputError(
            f"the authority or certificate in {folder} cannot be read: {error}: remove {_SERVER}.pem and "
            f"{_SERVER}.key to have them made again; without {_AUTHORITY}.pem every device needs another link"
        ) from error
    return OwnCertificate(*paths, _pem(authority))


def names_of_this_machine(*more: str) -> set[str]:
    """Host names and addresses under which devices may find this machine, and further ones."""
    interfaces = psutil.net_if_addrs().values()
    addresses = {each.address.partition("%")[0] for own in interfaces for each in own}
    known = {each for each in (*addresses, *more) if _address(each) is not None}
    names = {socket.gethostname(), "localhost", *more}
    return known | {each for each in names if each and each.isascii() and len(each) <= 253}


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate_path, key_path = folder / f"{_AUTHORITY}.pem", folder / f"{_AUTHORITY}.key"
    if not certificate_path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write_atomically(key_path, _key_bytes(key), mode=0o600)
        write_atomically(certificate_path, _pem(_self_signed(key)), mode=0o600)
    return x509.load_pem_x509_certificate(certificate_path.read_bytes()), _key(key_path)


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path.name} is another kind of key")
    return key


def _is_good(paths: tuple[Path, Path], authority: x509.Certificate, names: list[str]) -> bool:
    if not all(path.exists() for path in paths):
        return False
    certificate, key = x509.load_pem_x509_certificate(paths[0].read_bytes()), _key(paths[1])
    good_for = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return (
        certificate.issuer == authority.subject
        and certificate.public_key() == key.public_key()
        and left > _SERVER_AFTER / 2
        and {str(each.value) for each in good_for} >= set(names)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    # A name of its own: two authorities of one name could not be told apart.
    name = _name(f"gkt authority {x509.random_serial_number():x}"[:60])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    return (
        _begun(name, name, key, _AUTHORITY_AFTER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _signed(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    names: list[str],
) -> x509.Certificate:
    addressed = [(each, _address(each)) for each in names]
    alternatives = [x509.DNSName(name) if ip is None else x509.IPAddress(ip) for name, ip in addressed]
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        _begun(_name("gkt server"), authority.subject, key, _SERVER_AFTER)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer_key, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lasts: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + lasts)
    )


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
