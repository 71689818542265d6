"""A User-Mode Linux guest with kernel ESP in TCP; see guest/init for its side."""
import os

from .lab import Lab, wait_for

STATE = os.environ.get("INTEROP_STATE", "/var/lib/interop")


class GuestFailed(Exception):
    """The guest did not boot, or a command that had to work in it did not."""


class Guest:
    """One guest on the tap device `out0` of the lab's gateway namespace."""

    def __init__(self, lab, memory="192M"):
        kernel, root = os.path.join(STATE, "linux"), os.path.join(STATE, "root")
        if not os.path.exists(kernel) or not os.path.exists(os.path.join(root, "swugate-init")):
            raise GuestFailed(f"no guest in {STATE}: run deploy/interop/setup libreswan")
        self.dir = lab.directory("guest")
        self._commands = 0
        lab.exec(lab.gw, ["ip", "tuntap", "add", "out0", "mode", "tap"])
        for address in (lab.GATEWAY4 + "/24", lab.GATEWAY6 + "/64 nodad"):
            lab.ip(lab.gw, f"addr add {address} dev out0")
        # The guest's driver loses what is longer than its MTU, so nothing may leave to it unsegmented.
        lab.ip(lab.gw, "link set out0 gso_max_segs 1 up")
        self.process = lab.spawn("guest", [
            kernel, f"mem={memory}", "root=/dev/root", "rootfstype=hostfs", f"rootflags={root}", "ro",
            "init=/swugate-init", f"job={self.dir}", "con=null", "con0=null,fd:1", "quiet", "umid=guest",
            f"uml_dir={self.dir}", "vec0:transport=tap,ifname=out0,depth=128"], namespace=lab.gw)
        lab.on_close(self.halt)
        if not wait_for(lambda: os.path.exists(self.file("booted")), 30):
            raise GuestFailed("no boot: " + self.process.text()[-800:])
        self.sh(f"""
            ip addr add {Lab.UE4}/24 dev vec0
            ip addr add {Lab.UE6}/64 dev vec0 nodad
            ip link set vec0 up
            ip route add default via {Lab.GATEWAY4}
            ip -6 route add default via {Lab.GATEWAY6}""", check=True)

    def make_core(self):
        """A host behind the guest, 10.77.0.1, in a namespace of the guest's; the guest forwards."""
        self.sh(f"""set -e
            sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
            mkdir -p /run/netns
            ip netns add core
            ip link add core0 type veth peer name eth0 netns core
            ip addr add 10.77.0.254/24 dev core0
            ip link set core0 up
            ip -n core addr add {Lab.CORE4}/24 dev eth0
            ip -n core link set eth0 up
            ip -n core route add default via 10.77.0.254""", check=True)

    def iperf_server(self, port):
        """Starts a one-shot iperf3 server on the host behind the guest."""
        self.sh(f"ip netns exec core iperf3 -s -1 -D -p {port}; sleep 0.3", check=True)

    def file(self, name):
        """Host path of a file that the guest sees as /job/name."""
        return os.path.join(self.dir, name)

    def put(self, name, text):
        with open(self.file(name), "w") as file:
            file.write(text)

    def get(self, name):
        try:
            with open(self.file(name), errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def sh(self, script, timeout=30, check=False):
        """Runs a shell script in the guest; returns (status, output), status 124 when it takes too long."""
        self._commands += 1
        n = self._commands
        self.put("script.new", script + "\n")
        os.rename(self.file("script.new"), self.file(f"{n}.sh"))
        done = wait_for(lambda: os.path.exists(self.file(f"{n}.status")), timeout, 0.02)
        status = int(self.get(f"{n}.status")) if done else 124
        output = self.get(f"{n}.out")
        if check and status:
            raise GuestFailed(f"guest: {' '.join(script.split())[:200]}: status {status}: {output.strip()[-400:]}")
        return status, output

    def execute(self, argv, timeout):
        """The form harness.traffic wants."""
        return self.sh(" ".join(argv), timeout)

    def halt(self):
        self.put("halt", "")
        self.process.wait(3)
