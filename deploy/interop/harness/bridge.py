"""swugate's two bridges: originate in the place of the shim, and a relay in front of a stock strongSwan."""
import os

from . import strongswan
from .gateway import BINARY, TLS, GatewayFailed, Run
from .lab import wait_for

TICKS = os.sysconf("SC_CLK_TCK")

_RELAY = """[gateway]
workers = 1
run_dir = "{run_dir}"
[listen]
{listen}
[relay]
backend = "127.0.0.1:4500"
{more}
"""


class Originate:
    """`swugate originate`, started and asked like the shim."""

    def __init__(self, lab, namespace, role, udp, tcp, ca=None):
        self.lab, self.namespace, self.gateway = lab, namespace, tcp
        argv = [BINARY, role, "--listen", udp.rpartition(":")[0], "--gateway", tcp, "--log", "debug"]
        if ca:
            argv += ["--tls", "--tls-ca", ca, "--tls-name", "gw.test"]
        self.process = lab.spawn("originate", argv, namespace=namespace)
        bound = wait_for(lambda: udp in lab.exec(namespace, ["ss", "-Hlun"])[1], 10, 0.1)
        if not bound:
            raise GatewayFailed("originate does not listen: " + self.process.text()[-400:])

    def do(self, fault):
        """rst: the connection is destroyed where it ends, whose host then answers with a reset."""
        if fault != "rst":
            raise ValueError(fault)
        port = self.gateway.rpartition(":")[2]
        self.lab.exec(self.lab.gw, ["ss", "-K", "sport", "=", f":{port}"], check=False)

    def stats(self):
        text = self.process.text()
        return {"connections": text.count(" connected "), "resumed": text.count("resumed=true")}

    def stop(self):
        return self.process.stop()


class Originated(strongswan.Initiator):
    """strongSwan as the UE, through originate; its IKE starts at port 4500."""

    @staticmethod
    def way(lab, network, gateway):
        return Originate(lab, network.mid, "originate", f"{network.SHIM}:4500", f"{gateway}:{lab.PORT}")


class OriginatedFrom500(Originated):
    """The same as it comes: port 500, then 4500."""

    ports = ""


class OriginatedTls(Originated):
    """The same with TLS around the stream."""

    @staticmethod
    def way(lab, network, gateway):
        ca = lab.path("pki-ecdsa/ca.pem")
        return Originate(lab, network.mid, "originate", f"{network.SHIM}:4500", f"{gateway}:{lab.TLS_PORT}", ca)


class Relayed(Run):
    """A relay, and the strongSwan server it relays to, which never hears of TCP."""

    def __init__(self, lab, psk, auth, pki, first_at_500=False, tls=None):
        self.charon = strongswan.udp_responder(lab, psk, auth, pki)
        directory = lab.directory("relay")
        config = os.path.join(directory, "swugate.toml")
        with open(config, "w") as file:
            listen = f'tcp = ["0.0.0.0:{lab.PORT}", "[::]:{lab.PORT}"]'
            more = 'backend_ike = "127.0.0.1:500"\n' if first_at_500 else ""
            if tls:
                listen += f'\ntls = ["0.0.0.0:{lab.TLS_PORT}"]'
                more += TLS.format(chain=tls.file("gw.pem"), key=tls.file("gw.key"))
            file.write(_RELAY.format(run_dir=os.path.join(directory, "run"), listen=listen, more=more))
        super().__init__(lab, "relay", config, lab.PORT)

    def cpu_s(self):
        """CPU time of the relay's process so far: `ip netns exec` has become it."""
        with open(f"/proc/{self.process.child.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def octets(self):
        stats = self.stats()
        return stats["uplink"]["bytes"] + stats["downlink"]["bytes"]

    def step_mapped(self, verdict):
        """The port that strongSwan knows the UE by is the one the relay lists for it."""
        rows = self.sessions()
        _, sas = self.charon.ctl("--list-sas")
        ports = [row["backend_source"].rpartition(":")[2] for row in rows]
        known = any(f"127.0.0.1[{port}]" in sas for port in ports)
        verdict.step("mapped", len(rows) == 1 and known, " ".join(ports))

    def stop(self):
        try:
            super().stop()
        finally:
            self.charon.stop()
