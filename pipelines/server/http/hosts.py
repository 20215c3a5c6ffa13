"""The names under which a server without a key answers.

A page on the internet can give its own name this machine's loopback address and then ask the server behind it, as far
as the browser can tell the page's own (DNS rebinding). Such requests carry the page's name as their `Host`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from pipelines.server.http.api_error import ApiError


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, whoever asks."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _is_any_address(name: str) -> bool:
    """Whether it is 0.0.0.0 or [::], by which clients reach this machine that were given what a server listens on.

    Like loopback's addresses they belong to no page: nobody can make a name of them.
    """
    try:
        return ipaddress.ip_address(name.strip("[]")).is_unspecified
    except ValueError:
        return False


def host_name(header: str) -> str:
    """The name in a `Host` header, without its port."""
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0]


def checks_hosts(allowed: Sequence[str], keys: Sequence[str], address: str) -> bool:
    """Whether the names of requests count: where names are given, or anybody on this machine may ask without a key."""
    return bool(allowed) or (not keys and is_loopback(address))


def check_host(header: str | None, allowed: Sequence[str]) -> None:
    """Raises ApiError (403) for a `Host` that is neither loopback nor allowed; programs older than it send none."""
    if header is None:
        return
    name = host_name(header.strip())
    known = {host.lower() for host in allowed}
    if is_loopback(name) or _is_any_address(name) or "*" in known or {name.lower(), header.strip().lower()} & known:
        return
    shown = name[:80].encode("unicode_escape").decode()
    raise ApiError(
        f"this server answers to names of this machine and of --allowed-host only; the request was for {shown!r}: "
        "start the server with --allowed-host and that name, or without that option and with --api-key",
        status=403, code="host_not_allowed", headers={"Connection": "close"},
    )  # fmt: skip
