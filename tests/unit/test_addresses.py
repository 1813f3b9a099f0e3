"""Where webhooks may go: tables of addresses, and what hides one in another."""

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from general.addresses import Guard, may_reach
from shared.errors import UndeliverableError

V4 = st.ip_addresses(v=4)
LOOPBACK = (ip_network("127.0.0.0/8"),)


def mapped(inner: IPv4Address) -> IPv6Address:
    return IPv6Address(int(IPv6Address("::ffff:0:0")) | int(inner))


def six_to_four(inner: IPv4Address, rest: int = 1) -> IPv6Address:
    return IPv6Address(int(IPv6Address("2002::")) | int(inner) << 80 | rest)


def nat64(inner: IPv4Address) -> IPv6Address:
    return IPv6Address(int(IPv6Address("64:ff9b::")) | int(inner))


PRIVATE_V4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
PRIVATE_V6 = (
    "::/127",
    "::/96",
    "100::/64",
    "2001::/32",
    "2001:2::/48",
    "2001:db8::/32",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    "64:ff9b:1::/48",
    "3fff::/20",
    "5f00::/16",
    "::ffff:0:0:0/96",
)


def of(network: str) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    found: IPv4Network | IPv6Network = ip_network(network)
    return st.ip_addresses(network=found) | st.sampled_from([found[0], found[-1]])


@given(st.sampled_from([*PRIVATE_V4, *PRIVATE_V6]).flatmap(of))
def test_what_is_not_public_is_refused(address: IPv4Address | IPv6Address) -> None:
    assert not may_reach(address)


@given(st.sampled_from(PRIVATE_V4).flatmap(of), st.sampled_from([mapped, six_to_four, nat64]))
def test_another_s_clothes_hide_nothing(inner: IPv4Address, clothes: object) -> None:
    assert callable(clothes)
    assert not may_reach(clothes(inner))


@given(V4 | st.ip_addresses(v=6))
def test_python_never_refuses_what_we_allow(address: IPv4Address | IPv6Address) -> None:
    """Ours are at least as strict, in whatever release, but for the two ways round that are judged by their inside."""
    inside = isinstance(address, IPv6Address) and (address in ip_network("64:ff9b::/96") or address.ipv4_mapped)
    if may_reach(address) and not inside:
        assert address.is_global
        kinds = (address.is_private, address.is_multicast, address.is_reserved, address.is_unspecified)
        assert not any(kinds)


@given(V4)
def test_the_clothes_of_a_public_one_do_not_matter(inner: IPv4Address) -> None:
    assert may_reach(mapped(inner)) == may_reach(six_to_four(inner)) == may_reach(nat64(inner)) == may_reach(inner)


@pytest.mark.parametrize("public", ["8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.0", "2606:4700::1111", "2a00::1"])
def test_the_internet_is_reached(public: str) -> None:
    assert may_reach(ip_address(public))


@given(of("127.0.0.0/8"))
def test_what_is_allowed_is_reached_in_any_clothes(address: IPv4Address) -> None:
    assert all(may_reach(one, LOOPBACK) for one in (address, mapped(address), nat64(address)))
    assert not may_reach(ip_address("10.0.0.1"), LOOPBACK)
    assert may_reach(ip_address("fd00::1"), (ip_network("fd00::/8"),))


def test_a_scope_does_not_hide_a_link() -> None:
    assert not may_reach(ipaddress.ip_address("fe80::1%lo"))


def test_one_private_address_among_public_ones_is_enough() -> None:
    guard = Guard((), lambda _host, _port: ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(UndeliverableError, match=r"10\.0\.0\.1 .*WEBHOOK_ALLOWED_NETWORKS") as caught:
        guard("both.invalid", 443)
    assert caught.value.reason == "refused"


def test_names_of_ours_in_odd_spellings_are_looked_up_by_the_system_and_judged() -> None:
    for host in ("localhost", "127.1", "0x7f.1", "2130706433", "0", "::1"):
        with pytest.raises(UndeliverableError):
            Guard(())(host, 80)
