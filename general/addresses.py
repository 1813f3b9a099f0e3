"""Where webhooks may go: anybody on the Internet may name an address here, and ours must not be among them.

The tables are IANA's of special purposes, and not Python's `is_global`, which differs from release to release:
https://www.iana.org/assignments/iana-ipv4-special-registry and https://www.iana.org/assignments/iana-ipv6-special-registry
"""

import ipaddress
from collections.abc import Sequence

from shared.errors import UndeliverableError
from shared.network import Resolve, addresses_of
from shared.variables import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",  # this host
            "10.0.0.0/8",
            "100.64.0.0/10",  # between a provider and its customers
            "127.0.0.0/8",
            "169.254.0.0/16",  # of the link, with the clouds' metadata
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
            "2001::/23",  # the IETF's own: Teredo and others
            "2001:db8::/32",
            "3fff::/20",
        ),
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")  # what is not in it is nobody's, or somebody's own
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Guard:
    """Looks names up, and refuses those of which any address is not public.

    Any: who names a host with two addresses would else have us try the private one when the public one is silent.

    Args:
        allowed: networks that may be reached all the same.
        resolve: how names are looked up.
    """

    def __init__(self, allowed: Sequence[Network], resolve: Resolve = addresses_of) -> None:
        self._allowed, self._resolve = tuple(allowed), resolve

    def __call__(self, host: str, port: int) -> list[str]:
        """The addresses of a host, all of them reachable for a webhook.

        Raises:
            UndeliverableError: one of them is not.
        """
        found = self._resolve(host, port)
        for one in found:
            if not may_reach(ipaddress.ip_address(one), self._allowed):
                raise UndeliverableError(
                    f"a webhook to {host} is not sent: its address {one} is not a public one, and not in "
                    "WEBHOOK_ALLOWED_NETWORKS",
                    "refused",
                )
        return found


def may_reach(address: Address, allowed: Sequence[Network] = ()) -> bool:
    """Whether a webhook may go there: to what is public or allowed; one in another's clothes is judged by itself."""
    if any(address in network for network in allowed):
        return True
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inner(address)
        if inner is not None:
            return may_reach(inner, allowed)
        if address not in _GLOBAL_V6:
            return False
    return not any(address in network for network in _SPECIAL)


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that this one leads to."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
