"""Addresses in every spelling: which of them are public."""

import pytest

from maskloop.errors import ImageError
from maskloop_studio.images.address_guard import check_public, host_addresses, is_public, literal_address


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("10.1", "10.0.0.1"),
        ("192.168.257", "192.168.1.1"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("127。0。0。1", "127.0.0.1"),
        ("127．0．0．1", "127.0.0.1"),
        ("１２７.0.0.1", "127.0.0.1"),
        ("①②⑦.0.0.1", "127.0.0.1"),
        ("8.8.8.8", "8.8.8.8"),
        ("134744072", "8.8.8.8"),
        ("::1", "::1"),
        ("::ffff:7f00:1", "::ffff:127.0.0.1"),
        ("example.com", None),
        ("localhost", None),
        ("1.2.3.4.example", None),
        ("0x7f.example", None),
        ("1.2.3.0x1g", None),
        ("xn--bcher-kva.example", None),
    ],
)
def test_literal_address_every_spelling_is_read(host, address):
    found = literal_address(host)
    expected = None if address is None else literal_address(address)
    assert found == expected


@pytest.mark.parametrize(
    "host",
    ["256.256.256.256", "1.2.3.4.5", "1.2.3.256", "4294967296", "0x100000000", "08.0.0.1", "1..2", "a.1",
     "fe80::1%eth0", "::1%lo", "1:2:3", "9" * 400],
)  # fmt: skip
def test_literal_address_number_that_is_no_address_is_refused(host):
    with pytest.raises(ImageError, match="correct the task"):
        literal_address(host)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        pytest.param("93.184.216.34", True, id="public"),
        pytest.param("2606:2800:220:1:248:1893:25c8:1946", True, id="public IPv6"),
        pytest.param("64:ff9b::5db8:d822", True, id="NAT64 of a public one"),
        pytest.param("::ffff:93.184.216.34", True, id="mapped public one"),
        pytest.param("127.0.0.1", False, id="loopback"),
        pytest.param("127.255.255.254", False, id="end of loopback"),
        pytest.param("0.0.0.0", False, id="unspecified"),
        pytest.param("10.0.0.1", False, id="private 10"),
        pytest.param("172.31.0.1", False, id="private 172"),
        pytest.param("192.168.1.1", False, id="private 192"),
        pytest.param("100.64.0.1", False, id="carrier NAT"),
        pytest.param("169.254.169.254", False, id="cloud metadata"),
        pytest.param("168.63.129.16", False, id="Azure"),
        pytest.param("192.0.0.192", False, id="Oracle metadata"),
        pytest.param("100.100.100.200", False, id="Alibaba metadata"),
        pytest.param("198.18.0.1", False, id="benchmark"),
        pytest.param("203.0.113.1", False, id="documentation"),
        pytest.param("224.0.0.1", False, id="multicast"),
        pytest.param("240.0.0.1", False, id="reserved"),
        pytest.param("255.255.255.255", False, id="broadcast"),
        pytest.param("::", False, id="unspecified IPv6"),
        pytest.param("::1", False, id="loopback IPv6"),
        pytest.param("fe80::1", False, id="link local"),
        pytest.param("fe80::1%eth0", False, id="zone"),
        pytest.param("fc00::1", False, id="unique local"),
        pytest.param("fd00:ec2::254", False, id="AWS metadata IPv6"),
        pytest.param("fec0::1", False, id="site local"),
        pytest.param("ff02::1", False, id="multicast IPv6"),
        pytest.param("2001:db8::1", False, id="documentation IPv6"),
        pytest.param("::ffff:127.0.0.1", False, id="mapped loopback"),
        pytest.param("::127.0.0.1", False, id="compatible loopback"),
        pytest.param("::8.8.8.8", False, id="compatible public"),
        pytest.param("64:ff9b::7f00:1", False, id="NAT64 of loopback"),
        pytest.param("64:ff9b::a9fe:a9fe", False, id="NAT64 of metadata"),
        pytest.param("64:ff9b:1::808:808", False, id="local NAT64"),
        pytest.param("2002:7f00:1::1", False, id="6to4 of loopback"),
        pytest.param("2002:808:808::1", False, id="6to4 of a public one"),
        pytest.param("2001:0:4136:e378:8000:63bf:80ff:fffe", False, id="Teredo of loopback"),
        pytest.param("2606:2800::5efe:7f00:1", False, id="ISATAP of loopback"),
    ],
)
def test_is_public_looks_at_carried_addresses_too(address, expected):
    assert is_public(address) is expected


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f.0.0.1", "::ffff:10.0.0.1", "localhost"])
def test_check_public_private_host_is_refused(host):
    with pytest.raises(ImageError, match="a public address, got"):
        check_public(host, host_addresses(host, 80))


def test_check_public_one_private_address_among_public_ones_is_refused():
    with pytest.raises(ImageError, match=r"got 10\.0\.0\.1"):
        check_public("two.example", ["93.184.216.34", "10.0.0.1"])


def test_host_addresses_unknown_host_is_named():
    with pytest.raises(ImageError, match=r"nowhere\.invalid.*an unknown host"):
        host_addresses("nowhere.invalid", 80)
