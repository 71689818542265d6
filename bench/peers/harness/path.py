"""The path: three namespaces, the same for every peer.

    peers-ue 192.0.2.2 --veth, MTU 1500-- 192.0.2.1 peers-gw 198.19.0.1 --veth-- 198.19.0.2 peers-core
    tunnel client                              tunnel server                          iperf3 -s

The client's inner address comes from 198.18.0.0/24; inner MTU 1400 for every peer.  Server daemon and iperf3 server
have the first core, client daemon, iperf3 client and ping the last one, and each side's receive work runs on its own
core: two one-core hosts.  The link between them carries TCP segments of up to 185,000 octets (BIG TCP): each segment is an
interrupt of the other core, which a virtual machine makes expensive and a network card's moderation saves.
"""
import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading

UE, GW, CORE = (f"peers-{role}-{os.getpid()}" for role in ("ue", "gw", "core"))
CORES = sorted(os.sched_getaffinity(0))
SERVER_CPU, CLIENT_CPU = CORES[0], CORES[-1]
ENV = {"UE": UE, "GW": GW, "CORE": CORE, "OUT_UE": "192.0.2.2", "OUT_GW": "192.0.2.1", "TUN_NET": "198.18.0.0/24",
       "TUN_GW": "198.18.0.1", "TUN_UE": "198.18.0.2", "CORE_NET": "198.19.0.0/24", "CORE_IP": "198.19.0.2", "MTU": "1400",
       "SERVER_CPU": str(SERVER_CPU), "CLIENT_CPU": str(CLIENT_CPU)}

BUILD = """set -e
for n in $UE $GW $CORE; do ip netns add $n; ip -n $n link set lo up; done
ip link add ue0 netns $UE mtu 1500 type veth peer name gw0 netns $GW
ip link add gw1 netns $GW mtu 1500 type veth peer name core0 netns $CORE
ip -n $UE   addr add $OUT_UE/24  dev ue0;     ip -n $UE   link set ue0 up
ip -n $GW   addr add $OUT_GW/24  dev gw0;     ip -n $GW   link set gw0 up
ip -n $GW   addr add 198.19.0.1/24 dev gw1;   ip -n $GW   link set gw1 up
ip -n $CORE addr add $CORE_IP/24 dev core0;   ip -n $CORE link set core0 up
ip -n $CORE route add default via 198.19.0.1
ip netns exec $GW sysctl -qw net.ipv4.ip_forward=1
for n in $UE $GW $CORE; do ip netns exec $n sysctl -qw net.ipv4.conf.all.rp_filter=0 \
  net.ipv4.conf.default.rp_filter=0 net.ipv6.conf.all.disable_ipv6=1; done"""


def shell(script, check=True, timeout=120):
    done = subprocess.run(["bash", "-c", script], text=True, capture_output=True, timeout=timeout, env={**os.environ, **ENV})
    if check and done.returncode:
        raise RuntimeError(f"{script.splitlines()[0][:80]}: status {done.returncode}: {(done.stderr or done.stdout)[-1000:]}")
    return done.stdout


def build():
    shell(BUILD)
    allow_big_tcp(UE, "ue0")
    allow_big_tcp(GW, "gw0")
    choose_congestion_control()
    links = ((UE, "ue0", CLIENT_CPU), (GW, "gw0", SERVER_CPU), (GW, "gw1", SERVER_CPU), (CORE, "core0", SERVER_CPU))
    for namespace, device, core in links:
        mask = ",".join([f"{1 << (core % 32):x}"] + ["00000000"] * (core // 32))
        shell(f"ip netns exec {namespace} sh -c 'echo {mask} > /sys/class/net/{device}/queues/rx-0/rps_cpus'")


ALLOWED = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"


def choose_congestion_control():
    """Cubic for all connections of all peers, the default of most hosts; BBR, which is that of some, sends by timers.

    A namespace may only choose what the host allows to unprivileged users, so the host does for this moment.
    """
    try:
        with open(ALLOWED, "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            allowed = file.read().split()
            if "cubic" not in allowed:
                allow([*allowed, "cubic"])
            try:
                for namespace in (UE, GW, CORE):
                    shell(f"ip netns exec {namespace} sysctl -qw net.ipv4.tcp_congestion_control=cubic")
            finally:
                if "cubic" not in allowed:
                    allow(allowed)
    except (OSError, RuntimeError) as failure:
        print(f"the host's congestion control, not cubic: {failure}", file=sys.stderr)


def allow(names):
    with open(ALLOWED, "w") as file:
        file.write(" ".join(names))


SEGMENT_MAX = 185_000
CLONE_NEWNET = 0x40000000


def allow_big_tcp(namespace, device):
    """`ip link set DEVICE gso_max_size … gso_ipv4_max_size …`, which iproute2 knows from 6.3 on"""
    message_type, flags, sizes = 16, 5, (41, 58, 63, 64)  # RTM_NEWLINK; REQUEST | ACK; IFLA_{GSO,GRO}{,_IPV4}_MAX_SIZE

    def inside():
        with open(f"/run/netns/{namespace}") as entered:
            setns(entered.fileno())
        link = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, socket.if_nametoindex(device), 0, 0)
        body = link + b"".join(struct.pack("=HHI", 8, kind, SEGMENT_MAX) for kind in sizes)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
            netlink.send(struct.pack("=IHHII", 16 + len(body), message_type, flags, 1, 0) + body)
            netlink.recv(4096)  # kernels that do not know it say so; the link works all the same

    # A namespace is entered by a thread and for good.
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()


def setns(descriptor):
    import ctypes
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def remove():
    for namespace in (UE, GW, CORE):
        if os.path.exists(f"/run/netns/{namespace}"):
            shell(f"ip netns del {namespace}", check=False)
