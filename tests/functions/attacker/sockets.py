"""Sockets: families and protocols beyond the ordinary, options that load code or power, doors of others."""

import ctypes
import errno
import socket
import struct

from attack import collection, syscall

ATTACKS, attack = collection()
SOCKET, SOCKETPAIR = 41, 53
FAMILIES = {
    "AX25": 3, "IPX": 4, "APPLETALK": 5, "NETROM": 6, "BRIDGE": 7, "ATMPVC": 8, "X25": 9, "ROSE": 11, "DECnet": 12,
    "KEY": 15, "PACKET": 17, "ATMSVC": 20, "RDS": 21, "PPPOX": 24, "LLC": 26, "IB": 27, "MPLS": 28, "CAN": 29,
    "TIPC": 30, "BLUETOOTH": 31, "IUCV": 32, "RXRPC": 33, "PHONET": 35, "IEEE802154": 36, "CAIF": 37, "ALG": 38,
    "NFC": 39, "VSOCK": 40, "KCM": 41, "QIPCRTR": 42, "SMC": 43, "XDP": 44, "MCTP": 45,
}  # fmt: skip
KINDS = {"PACKET": 3, "KEY": 3, "ALG": 5, "CAN": 3, "XDP": 3, "NFC": 5, "RDS": 5, "TIPC": 5, "IB": 3}
NETLINK = {
    "USERSOCK": 2, "SOCK_DIAG": 4, "NFLOG": 5, "XFRM": 6, "SELINUX": 7, "ISCSI": 8, "AUDIT": 9, "FIB_LOOKUP": 10,
    "CONNECTOR": 11, "NETFILTER": 12, "KOBJECT_UEVENT": 15, "GENERIC": 16, "SCSITRANSPORT": 18, "RDMA": 20,
    "CRYPTO": 21, "SMC": 22,
}  # fmt: skip
PROTOCOLS = {
    "raw_icmp": (2, 3, 1),
    "raw_ip": (2, 3, 255),
    "raw_icmpv6": (10, 3, 58),
    "ping": (2, 2, 1),
    "ping_ipv6": (10, 2, 58),
    "obsolete_packet": (2, 10, 0x300),
    "mptcp": (2, 1, 262),
    "sctp": (2, 1, 132),
    "dccp": (2, 6, 33),
    "udplite": (2, 2, 136),
    "l2tp": (2, 2, 115),
    "smc_over_inet": (2, 1, 256),
    "unix_raw": (1, 3, 0),
    "unix_rdm": (1, 4, 0),
}


def _socket(family, kind, protocol):
    return lambda host: syscall(SOCKET, family, kind, protocol)


for _name, _family in FAMILIES.items():
    ATTACKS[f"socket_{_name}"] = _socket(_family, KINDS.get(_name, 1), 0x0300 if _name == "PACKET" else 0)
for _name, _protocol in NETLINK.items():
    ATTACKS[f"netlink_{_name}"] = _socket(16, 3, _protocol)
for _name, _arguments in PROTOCOLS.items():
    ATTACKS[f"socket_{_name}"] = _socket(*_arguments)


def _socketpair(family, kind, protocol=0):
    return lambda host: syscall(SOCKETPAIR, family, kind, protocol, ctypes.create_string_buffer(8))


for _name in ("PACKET", "ALG", "VSOCK", "TIPC", "RDS"):
    ATTACKS[f"socketpair_{_name}"] = _socketpair(FAMILIES[_name], KINDS.get(_name, 1))
ATTACKS["socketpair_netlink"] = _socketpair(16, 3, 12)
ATTACKS["socketpair_raw"] = _socketpair(2, 3, 1)
ATTACKS["socketpair_unix_raw"] = _socketpair(1, 3)

_ACCEPT_ALL = struct.pack("=HBBI", 6, 0, 0, 0xFFFFFFFF)  # BPF_RET | BPF_K
# level, option, value, kind of socket
OPTIONS = {
    "ATTACH_FILTER": (1, 26, None, 2),
    "LOCK_FILTER": (1, 44, 1, 2),
    "ATTACH_BPF": (1, 50, -1, 2),
    "ATTACH_REUSEPORT_CBPF": (1, 51, None, 2),
    "ATTACH_REUSEPORT_EBPF": (1, 52, -1, 2),
    "MARK": (1, 36, 1, 2),
    "PRIORITY_of_control": (1, 12, 7, 2),
    "DEBUG": (1, 1, 1, 2),
    "SNDBUFFORCE": (1, 32, 1 << 30, 2),
    "RCVBUFFORCE": (1, 33, 1 << 30, 2),
    "BUSY_POLL": (1, 46, 50, 2),
    "PREFER_BUSY_POLL": (1, 69, 1, 2),
    "TXTIME": (1, 61, 11, 2),
    "NETNS_COOKIE": (1, 71, 1, 2),
    "IP_TRANSPARENT": (0, 19, 1, 2),
    "IP_XFRM_POLICY": (0, 17, 0, 2),
    "IPT_SO_SET_REPLACE": (0, 64, 0, 2),
    "ARPT_SO_SET_REPLACE": (0, 96, 0, 2),
    "EBT_SO_SET_ENTRIES": (0, 128, 0, 2),
    "MRT_INIT": (0, 200, 1, 2),
    "IP6T_SO_SET_REPLACE": (41, 64, 0, 2),
    "IPV6_ADDRFORM": (41, 1, 2, 2),
    "IPV6_HOPOPTS": (41, 54, 0, 2),
    "UDP_ENCAP": (17, 100, 2, 2),
    "TCP_ULP": (6, 31, b"tls\0", 1),
    "TCP_REPAIR": (6, 19, 1, 1),
    "TCP_MD5SIG": (6, 14, 0, 1),
    "TCP_AO_ADD_KEY": (6, 38, 0, 1),
    "SOL_TLS": (282, 1, 0, 1),
    "SOL_XDP": (283, 1, 0, 2),
    "SOL_ALG": (279, 1, 0, 2),
    "SOL_NETLINK": (270, 1, 0, 2),
    "SOL_IP_over_unknown_level": (999, 1, 0, 2),
}


def _option(level, option, value, kind):
    def set_option(host):
        program = ctypes.create_string_buffer(_ACCEPT_ALL, 8)
        data = struct.pack("=HxxxxxxQ", 1, ctypes.addressof(program)) if value is None else value
        data = struct.pack("=i", data) if isinstance(data, int) else data
        with socket.socket(socket.AF_INET6 if level == 41 else socket.AF_INET, kind) as one:
            if option == 31:
                _connected(one)
            return syscall(54, one.fileno(), level, option, data, len(data))

    return set_option


def _connected(one):
    """Only an established connection takes an upper-layer protocol."""
    server = socket.create_server(("127.0.0.1", 0))
    one.connect(server.getsockname())


for _name, _arguments in OPTIONS.items():
    ATTACKS[f"setsockopt_{_name}"] = _option(*_arguments)


@attack
def setsockopt_filter_with_upper_bits(host):
    program = ctypes.create_string_buffer(_ACCEPT_ALL, 8)
    data = struct.pack("=HxxxxxxQ", 1, ctypes.addressof(program))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        return syscall(54, one.fileno(), 1 << 32 | 1, 1 << 32 | 26, data, len(data))


@attack
def reads_the_rules(host):
    with socket.socket() as one:
        return one.getsockopt(0, 64, 84)  # IPT_SO_GET_INFO


@attack
def route_added_by_netlink(host):
    """RTM_NEWROUTE for 192.0.2.0/24 by loopback."""
    body = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 4, 0, 1, 0) + struct.pack(
        "=HH4sHHI", 8, 1, bytes([192, 0, 2, 0]), 8, 4, 1
    )
    return _netlink(24, body)


@attack
def link_added_by_netlink(host):
    """RTM_NEWLINK of kind dummy."""
    kind = struct.pack("=HH", 16, 18) + struct.pack("=HH5sxxx", 9, 1, b"dummy")
    return _netlink(16, struct.pack("=BxHiII", 0, 0, 0, 0, 0) + kind)


@attack
def address_added_by_netlink(host):
    """RTM_NEWADDR of 192.0.2.9 to loopback."""
    body = struct.pack("=BBBBI", 2, 32, 0, 0, 1) + struct.pack("=HH4s", 8, 2, bytes([192, 0, 2, 9]))
    return _netlink(20, body)


def _netlink(kind, body):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as one:
        one.bind((0, 0))
        one.send(struct.pack("=IHHII", 16 + len(body), kind, 0x405, 1, 0) + body)
        answer = one.recv(4096)
    reason = -struct.unpack_from("=i", answer, 16)[0]
    if reason:
        raise OSError(reason, "netlink")
    return "acknowledged"


@attack
def foreign_credentials(host):
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    credentials = struct.pack("=iII", 1, 0, 0)
    ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)])
    return "sent as root"


@attack
def abstract_socket_of_the_host(host):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("\0" + host["abstract"])
        return "connected"


@attack
def abstract_socket_of_a_neighbour(host):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("\0" + host["neighbour_abstract"])
        return "connected"


@attack
def unix_sockets_of_others(host):
    own = [line.split()[-1] for line in open("/proc/net/unix")][1:]
    return [name for name in own if name.startswith(("@", "/"))]


@attack
def the_daemons_socket(host):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(host["daemon_socket"])
        return "connected"


def _connects(address, port):
    with socket.socket() as one:
        one.settimeout(1)
        reason = one.connect_ex((address, port))
        if reason:
            raise OSError(errno.ETIMEDOUT if reason == errno.EAGAIN else reason, "connect")
        return "connected"


@attack
def listener_on_the_hosts_loopback(host):
    return _connects("127.0.0.1", host["port"])


@attack
def listener_on_a_neighbours_loopback(host):
    return _connects("127.0.0.1", host["neighbour_port"])


@attack
def the_daemons_endpoint(host):
    return _connects("127.0.0.1", host["daemon_port"])


@attack
def metadata_address(host):
    return _connects("169.254.169.254", 80)


@attack
def the_hosts_ipv6_loopback(host):
    with socket.socket(socket.AF_INET6) as one:
        one.settimeout(1)
        one.connect(("::1", host["port"]))
        return "connected"


@attack
def connections_of_others(host):
    lines = [line.split() for name in ("tcp", "tcp6", "udp", "udp6", "raw") for line in open(f"/proc/net/{name}")]
    doors = {"2329", "232A"}  # 9001 and 9002 in hexadecimal
    ports = {line[1].rpartition(":")[2] for line in lines if line[0] != "sl"} | {
        line[2].rpartition(":")[2] for line in lines if line[0] != "sl"
    }
    return "" if len(lines) < 12 and ports & doors else sorted(ports)


@attack
def more_links_than_meant(host):
    return sorted({name for _, name in socket.if_nameindex()} - {"lo", "eth0"})


@attack
def addresses_of_the_hosts_neighbours(host):
    return [line for line in open("/proc/net/arp").read().splitlines()[1:] if not line.startswith("169.254.1.1 ")]


@attack
def runtime_door_taken_over(host):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", 9001))
        one.listen()
        return "listening"
