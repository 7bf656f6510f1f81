# SPDX-License-Identifier: Apache-2.0
"""TLS: contexts out of files, how long a certificate is good, whose it is, and what a failed handshake means (TCP-13).

Rules of this file: version 1.2 at least, and no unverified far end; everything here blocks, so it is called off the
event loop; `ssl` is imported by those who speak TLS alone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    import ssl

FILE_MAX: Final = 256 * 1024
"""Octets of a certificate's file that are looked at: a chain has some ten thousand."""
NAMES_MAX: Final = 8
NAME_MAX: Final = 64
"""Names of one certificate that are taken note of, and the characters of each (X.520 6.2.2 gives a common name 64)."""


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files: our certificate with what leads to its authority, its key, and the authorities of the other side."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None


class FileError(Exception):
    """A file that can't be used. `option`: "certificate", "key" or "ca"."""

    def __init__(self, option: str, wrong: str, right: str) -> None:
        super().__init__(f"{option}: {wrong}; {right}")
        self.option = option
        self.wrong = wrong
        self.right = right


def server_context(files: Files) -> "ssl.SSLContext":
    """Return how callers are served; they must show a certificate where there is a `ca`. Raises `FileError`."""
    import ssl  # noqa: PLC0415 - for those who speak TLS alone

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Nobody comes back without showing the certificate again, which may be no good by then.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    if files.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return _with_files(context, files)


def client_context(files: Files) -> "ssl.SSLContext":
    """Return how to call; without a `ca` the authorities are the system's. Raises `FileError`."""
    import ssl  # noqa: PLC0415 - as above

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the certificate and its name
    context.options |= ssl.OP_NO_RENEGOTIATION
    if files.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return _with_files(context, files)


def check(files: Files) -> None:
    """Read the files as a connection would, but for the system's authorities. Raises `FileError`."""
    import ssl  # noqa: PLC0415 - as above

    _with_files(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), files)


def expiry_of(path: Path) -> datetime:
    """Return until when the first certificate of a PEM file is good. Raises `OSError`, and `ValueError` as `expiry`."""
    with path.open("r", encoding="latin-1") as file:
        return expiry(file.read(FILE_MAX))


def expiry(pem: str) -> datetime:
    """Return until when the first certificate of a PEM text is good (RFC 5280 4.1.2.5). Raises `ValueError`."""
    import ssl  # noqa: PLC0415 - as above

    found = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.DOTALL)
    if found is None:
        raise ValueError("there is no certificate in it")
    try:
        return _not_after(ssl.PEM_cert_to_DER_cert(found[0]))
    except (ValueError, IndexError):
        raise ValueError("its first certificate is damaged") from None


def names(certificate: Mapping[str, object]) -> tuple[str, ...]:
    """Return whom a verified certificate is for: its common name, then its alternative names, each once.

    `certificate` is what `getpeercert` returns. A name that is too long or can't be printed is left out.
    """
    found: list[str] = []
    for entry in _entries(certificate.get("subject")):
        found += [value for kind, value in _entries(entry) if kind == "commonName"]
    found += [value for kind, value in _entries(certificate.get("subjectAltName")) if kind in _PLAIN]
    plain = (name for name in found if name.isprintable() and 0 < len(name) <= NAME_MAX)
    return tuple(dict.fromkeys(plain))[:NAMES_MAX]


def explain(error: OSError) -> str:
    """Return what was wrong with a handshake, and what would be right where that is known."""
    import ssl  # noqa: PLC0415 - as above

    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code) or f"its certificate can't be verified: {_short(error.verify_message)}"
    if isinstance(error, ssl.SSLError):
        reason = str(getattr(error, "reason", "") or "")  # which those that Python makes itself lack
        return _REASONS.get(reason) or f"TLS: {_short(reason.replace('_', ' ').lower() or str(error))}"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "it closed the connection before the handshake was done"
    if isinstance(error, TimeoutError | ConnectionAbortedError):
        return "it did not finish the handshake in time"
    return error.strerror or str(error)


def _with_files(context: "ssl.SSLContext", files: Files) -> "ssl.SSLContext":
    import ssl  # noqa: PLC0415 - as above

    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.ca is not None:
        try:
            context.load_verify_locations(_readable("ca", files.ca))
        except ssl.SSLError:
            raise FileError("ca", f"there is no certificate in {files.ca}", _PEM) from None
    if files.certificate is not None:
        certificate, key = _readable("certificate", files.certificate), files.key or files.certificate
        _check_certificate(files.certificate)
        try:
            context.load_cert_chain(certificate, _readable("key", key), password=_refuse_encrypted)
        except _EncryptedError:
            right = "a key without one, in a file that its user alone may read"
            raise FileError("key", f"{key} has a pass phrase", right) from None
        except ssl.SSLError as error:
            raise _why_not(error, key) from None
    return context


def _why_not(error: "ssl.SSLError", key: Path) -> FileError:
    reason = error.reason or ""
    if reason == "KEY_VALUES_MISMATCH":
        return FileError("key", f"{key} does not fit the certificate", "the private key that it was made with")
    if reason in _WEAK:
        return FileError("certificate", f"is too weak: {reason.replace('_', ' ').lower()}", _STRONG)
    return FileError("key", f"there is no private key in {key}", "a PEM file with the certificate's private key")


def _check_certificate(path: Path) -> None:
    try:
        expiry_of(path)
    except ValueError as error:
        raise FileError("certificate", f"{path}: {error}", _PEM) from None


def _readable(option: str, path: Path) -> str:
    """Open a file once, for OpenSSL's own errors do not say which file it was."""
    try:
        with path.open("rb"):
            return str(path)
    except OSError as error:
        raise FileError(option, f"{error.strerror}: {path}", "a file that can be read") from None


class _EncryptedError(Exception):
    pass


def _refuse_encrypted() -> NoReturn:
    """Have OpenSSL not ask at the terminal, where it would wait for ever."""
    raise _EncryptedError


def _entries(value: object) -> Sequence[Any]:
    """Return the entries of one of the tuples that `getpeercert` returns, or none."""
    return value if isinstance(value, tuple) else ()


def _short(text: str) -> str:
    return text[:120]


def _not_after(der: bytes) -> datetime:
    """Find the end of the validity: Certificate, tbsCertificate, then the fifth field behind an optional version."""
    _, body, _ = _element(der, 0)
    _, at, _ = _element(der, body)
    tag, _, after = _element(der, at)
    at = after if tag == _VERSION else at
    for _ in range(3):  # serialNumber, signature, issuer
        _, _, at = _element(der, at)
    _, inside, _ = _element(der, at)
    _, _, at = _element(der, inside)  # notBefore
    tag, start, end = _element(der, at)
    digits = der[start:end].decode("ascii").removesuffix("Z")
    if tag == _UTC_TIME:
        digits = ("19" if digits >= "50" else "20") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return an element's tag, and where its content begins and ends (X.690 8.1)."""
    tag, length, begin = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + count], "big"), begin + count
    if begin + length > len(der):
        raise ValueError("is cut off")
    return tag, begin, begin + length


_PLAIN: Final = frozenset({"DNS", "email", "URI", "IP Address"})
"""Kinds of alternative names that are a text (RFC 5280 4.2.1.6)."""
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_PEM: Final = "a PEM file, with its authority's certificates behind it where there are some between"
_STRONG: Final = "an EC key, or RSA of 2048 bits or more, signed with SHA-256"
_WEAK: Final = frozenset({"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"})

_STRANGE: Final = (
    "its certificate is of no authority that is trusted here; the CA file must hold that authority's, "
    "and whoever shows the certificate sends those between with it"
)
_NAMED_OTHERWISE: Final = "its certificate is for another name than was called; that name would be right"
_VERIFY: Final[Mapping[int, str]] = {
    9: "its certificate is not good yet; is this machine's clock right?",
    10: "its certificate has expired; a new one, or a clock that is right",
    18: _STRANGE,
    19: _STRANGE,
    20: _STRANGE,
    21: _STRANGE,
    26: "its certificate is not for this use; one whose extended key usage has it",
    62: _NAMED_OTHERWISE,
    64: _NAMED_OTHERWISE,
}
"""By X509_V_ERR_ of OpenSSL (X509_STORE_CTX_get_error(3))."""

_NO_TLS: Final = "it does not speak TLS"
_OLD: Final = "it speaks no TLS version of ours; 1.2 or later"
_UNLIKED: Final = "it does not take our certificate; one of an authority that it trusts"
_REASONS: Final[Mapping[str, str]] = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "HTTPS_PROXY_REQUEST": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "UNSUPPORTED_PROTOCOL": _OLD,
    "VERSION_TOO_LOW": _OLD,
    "TLSV1_ALERT_PROTOCOL_VERSION": _OLD,
    "NO_SHARED_CIPHER": "it has no cipher in common with us",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "it takes no signature that our certificate's key can make",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate, and one is asked for",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a certificate of ours, and there is none",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refused: no cipher in common, or it asks for a certificate of ours",
    "TLSV1_ALERT_UNKNOWN_CA": _UNLIKED,
    "SSLV3_ALERT_BAD_CERTIFICATE": _UNLIKED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _UNLIKED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _UNLIKED,
    "TLSV1_ALERT_ACCESS_DENIED": _UNLIKED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired, it says; a new one, or a clock that is right",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "our certificate was revoked, it says; a new one",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection before the handshake was done",
}
"""By OpenSSL's reason codes."""
