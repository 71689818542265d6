"""Throw-away network namespaces and processes of one run.

Nothing touches the host's own network: every link, address and daemon lives in namespaces made
here, and whatever a Lab made is gone after close().
"""
import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

_serial = itertools.count(1)


class CommandFailed(Exception):
    """A command of the harness itself ended with another status than 0."""


def run(argv, timeout=30, check=True, env=None):
    """Runs argv to its end; returns (status, standard output and error together)."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", timeout=timeout, env=env)
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        status, output = 124, (late.stdout or b"").decode(errors="replace") + f"\n(no end within {timeout} s)"
    if check and status:
        raise CommandFailed(f"{' '.join(argv)}: status {status}: {output.strip()[-600:]}")
    return status, output


def wait_for(condition, timeout, step=0.05):
    """Polls condition() until it is true; returns its value, or a false one after timeout seconds."""
    end = time.monotonic() + timeout
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(step)
    return value


class Process:
    """A child with its own process group; its output is in the file `log`.

    It is reaped by stop() only: until then nothing else can get its number.
    """

    def __init__(self, name, argv, log, env=None, stdin=subprocess.DEVNULL):
        self.name, self.log = name, log
        with open(log, "ab") as out:
            self.child = subprocess.Popen(argv, stdin=stdin, stdout=out, stderr=subprocess.STDOUT,
                                          env={**os.environ, **(env or {})}, start_new_session=True)

    def _end(self):
        """How it ended, or None while it runs."""
        return os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)

    def running(self):
        return self.child.returncode is None and self._end() is None

    def text(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def wait(self, timeout):
        """The exit status, or None when it still runs after timeout seconds."""
        end = wait_for(self._end, timeout, 0.02)
        return end and (end.si_status if end.si_code == os.CLD_EXITED else -end.si_status)

    def stop(self, grace=5.0):
        """SIGTERM, then SIGKILL for whatever of its group is left; returns the exit status."""
        if self.child.returncode is not None:
            return self.child.returncode
        if self.running():
            os.kill(self.child.pid, signal.SIGTERM)
            self.wait(grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        return self.child.wait(5)


class Lab:
    """Namespaces `gw` (the gateway) and `core` (a host behind it), and room for peers.

    gw has core0 10.77.0.254/24 and 2001:db8:77::fe/64; core is 10.77.0.1 and 2001:db8:77::1 with
    its default routes through gw.  The outside link is made by the peer: 10.98.0.1/24 and
    2001:db8:98::1/64 on gw's side.
    """

    GATEWAY4, GATEWAY6, PORT, TLS_PORT = "10.98.0.1", "2001:db8:98::1", 4500, 443
    UE4, UE6 = "10.98.0.2", "2001:db8:98::2"
    CORE4, CORE6 = "10.77.0.1", "2001:db8:77::1"

    def __init__(self, label):
        self.prefix = f"{os.environ.get('INTEROP_PREFIX', 'swi')}{os.getpid()}{label}{next(_serial)}"
        self.dir = tempfile.mkdtemp(prefix=f"swugate-interop-{label}-")
        self.keep = False
        self._stack = contextlib.ExitStack()
        self._logs = itertools.count(1)
        self.gw, self.core = self.namespace("gw"), self.namespace("core")
        self.veth(self.gw, "core0", ("10.77.0.254/24", "2001:db8:77::fe/64"),
                  self.core, "eth0", (self.CORE4 + "/24", self.CORE6 + "/64"))
        self.ip(self.core, "route add default via 10.77.0.254")
        self.ip(self.core, "-6 route add default via 2001:db8:77::fe")
        self.exec(self.gw, ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def directory(self, name):
        """A new directory for the files of one daemon."""
        path = self.path(f"{next(self._logs):02}-{name}")
        os.mkdir(path)
        return path

    def on_close(self, action, *args):
        """Registers what undoes a step; undone last to first."""
        self._stack.callback(action, *args)

    def close(self):
        self._stack.close()
        if not self.keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def namespace(self, name):
        full = f"{self.prefix}-{name}"
        run(["ip", "netns", "add", full])
        self.on_close(lambda: run(["ip", "netns", "del", full], check=False))
        self.ip(full, "link set lo up")
        return full

    def ip(self, namespace, arguments, check=True):
        return run(["ip", "-n", namespace, *arguments.split()], check=check)

    def exec(self, namespace, argv, timeout=30, check=True):
        return run(["ip", "netns", "exec", namespace, *argv], timeout=timeout, check=check)

    def veth(self, one, one_dev, one_addresses, other, other_dev, other_addresses):
        """A link between two namespaces, with addresses on both ends, up."""
        self.ip(one, f"link add {one_dev} type veth peer name {other_dev} netns {other}")
        for namespace, device, addresses in ((one, one_dev, one_addresses), (other, other_dev, other_addresses)):
            for address in addresses:
                self.ip(namespace, f"addr add {address} dev {device}" + (" nodad" if ":" in address else ""))
            self.ip(namespace, f"link set {device} up")

    def spawn(self, name, argv, namespace=None, env=None, stdin=subprocess.DEVNULL, private_run=False,
              binds=()):
        """Starts a process, in a namespace; `private_run` gives it a /run of its own, `binds` directories for others."""
        if private_run:
            mounts = " && ".join(["mount -t tmpfs tmpfs /run", *(f"mount --bind {new} {old}" for new, old in binds)])
            argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounts + ' && exec "$@"', "sh", *argv]
        if namespace:
            argv = ["ip", "netns", "exec", namespace, *argv]
        process = Process(name, argv, self.path(f"{next(self._logs):02}-{name}.log"), env, stdin)
        self.on_close(process.stop)
        return process

    def listening(self, port, timeout=10):
        """Whether something in gw accepts TCP connections on this port within the timeout."""
        def bound():
            return any(line.split()[3].endswith(f":{port}")
                       for line in self.exec(self.gw, ["ss", "-Hltn"])[1].splitlines() if len(line.split()) > 3)
        return bool(wait_for(bound, timeout, 0.1))

    def capture(self, device, file, expression):
        """Starts tcpdump on a device of gw; returns the process once it captures."""
        argv = ["tcpdump", "--immediate-mode", "-Z", "root", "-U", "-n", "-s0", "-i", device, "-w", file, expression]
        process = self.spawn("tcpdump", argv, namespace=self.gw)
        wait_for(lambda: "listening on" in process.text(), 5)
        return process


class Firewall:
    """What the gateway's host drops of what comes in; nothing without a match."""

    def __init__(self, lab, match):
        self.lab = lab
        if match:
            for line in ("add table inet fw", "add chain inet fw in { type filter hook input priority 0; }",
                         f"add rule inet fw in {match} counter drop"):
                lab.exec(lab.gw, ["nft", line])

    def dropped(self):
        """Packets so far."""
        return int(re.search(r"counter packets (\d+)", self.lab.exec(self.lab.gw, ["nft", "list", "ruleset"])[1])[1])

    def open(self):
        self.lab.exec(self.lab.gw, ["nft", "flush ruleset"])
