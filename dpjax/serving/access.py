"""Who may connect: the token, TLS, and the addresses that need them."""

import hmac
from pathlib import Path
import ssl

from dpjax.core.errors import UserError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SCHEMES = ("api-key", "bearer")  # openpi's, and everybody else's


def has_token(header: str, token: bytes | None) -> bool:
    """Whether an Authorization header presents the token; True if there is no token.

    header: "Api-Key <token>" or "Bearer <token>".
    """
    if token is None:
        return True
    scheme, _, presented = header.partition(" ")
    # Compared in a time that does not depend on how many characters are right.
    is_token = hmac.compare_digest(presented.strip().encode("utf-8", "replace"), token)
    return is_token and scheme.lower() in SCHEMES


def check_public(host: str, token: str | None, *, is_open: bool) -> None:
    """Raises UserError if the token is empty, or if others could connect without one.

    is_open: the user has allowed connections without a token.
    """
    if token is not None and not token.strip():
        raise UserError("the token is empty: every client would know it.", argument="token")
    # Programs of this machine can connect in any case; a token can be given for them too.
    if host in LOOPBACK or token or is_open:
        return
    raise UserError(
        f"host {host} can be reached by other machines, and there is no token: whoever connects "
        "could use the policy.",
        argument="host",
    )


def tls_context(cert: str | Path, key: str | Path | None) -> ssl.SSLContext:
    """The TLS settings of a server; raises UserError if the files cannot be read.

    cert: PEM file with the certificate. key: PEM file with its key; None if it is in `cert`.
    """
    # Python's defaults for servers: TLS 1.2 or newer.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or error
        raise UserError(
            f"{cert}: not a certificate with its key ({reason}).", argument="cert"
        ) from None
    return context
