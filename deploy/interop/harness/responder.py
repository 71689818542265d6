"""libreswan with kernel ESP in TCP as the gateway, loadgen as its UEs: neither end knows of the other's maker."""
import json
import re
import shutil

from .gateway import LOADGEN
from .lab import Lab, wait_for
from .libreswan import Pluto
from .traffic import device_ue, iperf_both_ways, ping, step_detach

# The guest is the gateway here.
ADDRESS, PORT = Lab.UE4, Lab.PORT
UE, NEXT = "10.97.0.2", "10.97.0.1"
UES, TRAFFIC_UES, SINK_PORT = 20, 4, 9000
NAME_SERVER = "10.77.0.53"

# The suites that loadgen offers unless it is told otherwise.  A default route leads to every UE, so there is nothing for
# the updown script to do, of which the guest runs one a second.
_CONN = f"""conn ues
  ikev2=insist
  left={ADDRESS}
  leftid=@gw.test
  leftsubnet=10.77.0.0/24
  leftmodecfgserver=yes
  leftupdown="%disabled"
  right=%any
  rightmodecfgclient=yes
  rightaddresspool=10.64.0.10-10.64.0.99
  modecfgdns={NAME_SERVER}
  narrowing=yes
  authby=secret
  ike=aes_gcm128-sha2_256;dh31
  esp=aes_gcm128,aes256-sha2_256
  esn=either
  enable-tcp=yes
  dpddelay=2
  retransmit-timeout=10s
  dpdaction=clear
  auto=ignore
"""


def network(lab):
    """A namespace that reaches the guest, and what is behind it only through a tunnel."""
    ue = lab.namespace("ue")
    lab.veth(lab.gw, "ue0", (NEXT + "/24",), ue, "eth0", (UE + "/24",))
    lab.ip(ue, f"route add {ADDRESS} via {NEXT}")
    return ue


class Responder(Pluto):
    """A gateway for anybody who knows the key, with a host behind it."""

    def __init__(self, lab, psk):
        super().__init__(lab)
        self.psk = psk
        self.guest.make_core()
        self.start({"ues": _CONN}, f': PSK "{psk}"\n')

    def command(self, command, *options):
        """A command line of loadgen."""
        return [LOADGEN, command, "--gateway", f"{ADDRESS}:{PORT}", "--transport", "tcp", "--psk", self.psk, *options]

    def traffic(self):
        """pluto's Child SAs: {address given: (octets in, octets out)}."""
        _, text = self.guest.sh("ipsec trafficstatus")
        return {sa[3]: (int(sa[1]), int(sa[2]))
                for sa in re.finditer(r"inBytes=(\d+), outBytes=(\d+),.*lease=([\d.]+)/32", text)}

    def step_counted(self, verdict, address):
        """The kernel of the guest has both SAs in TCP; each has taken what iperf3 sent."""
        sas = self.sas()
        verdict.step("kernel SAs", len(sas) == 2 and all(
            "encap type espintcp" in text and "rfc4106(gcm(aes))" in text and bool(re.search(r"flag .*\besn\b", text))
            for text in sas.values()), "espintcp ESN")
        octets = self.traffic().get(address, (0, 0))
        verdict.step("counted", min(octets) > 1e6, "+".join(f"{count / 1e6:.0f}" for count in octets) + " MB")

    def step_asked(self, verdict, name, what):
        """pluto must come to have another liveness check of this kind behind it."""
        before = self.log().count(what)
        verdict.step(name, bool(wait_for(lambda: self.log().count(what) > before, 8, 0.1)))

    def step_gone(self, verdict, name):
        """Nothing is left of any UE."""
        gone = wait_for(lambda: not self.sas() and not self.traffic(), 5, 0.2)
        verdict.step(name, bool(gone), "" if gone else str(self.traffic()))


def _one(bench, verdict):
    """A UE with a device of its own: traffic both ways, liveness checks, rekeys by pluto, DELETE."""
    peer, lab = bench.peer, bench.lab

    def run(argv, timeout):
        return lab.exec(bench.ue, argv, timeout, check=False)
    ue = device_ue(lab, bench.ue, peer.command("ue", "--tun", "tunnel0"))
    said = ue.text()
    address = re.search(r"has \[(10\.64\.0\.\d+)\]", said)
    verdict.step("attach", bool(address) and NAME_SERVER in said, address[1] if address else said[-300:])
    ping(verdict, "ping", run)
    iperf_both_ways(verdict, lab, run, server=peer.guest.iperf_server)
    peer.step_counted(verdict, address[1])
    peer.step_asked(verdict, "dpd", "received an INFORMATIONAL liveness check response")
    peer.rekey_child(verdict, "ues")
    ping(verdict, "ping", run)
    peer.rekey_ike(verdict, "ues")
    ping(verdict, "ping", run)
    step_detach(verdict, ue)
    peer.step_gone(verdict, "delete")


def _crowd(bench, verdict):
    """UEs by the dozen, each with an identity and an address of its own, who ask whether the gateway lives."""
    peer = bench.peer
    crowd, figures = _measured(bench, "attach", "--ues", str(UES), "--hold", "4", "--dpd", "1",
                               "--ike", "aes128gcm16-prfsha256-ecp384-x25519", "--esp", "aes256-sha256")
    leases = wait_for(lambda: len(found := peer.traffic()) >= UES and found or not crowd.running(), 15, 0.2)
    verdict.step("leases", isinstance(leases, dict) and len(leases) == UES, str(len(peer.traffic())))
    kernel = list(peer.sas().values())
    verdict.step("kernel SAs", len(kernel) == 2 * UES and all("cbc(aes)" in text for text in kernel), f"{len(kernel)} CBC")
    peer.step_asked(verdict, "dpd of the UEs", "received an INFORMATIONAL liveness check request")
    attach = figures(verdict)["attach"]
    verdict.step("of them all", attach["ok"] == UES, f"{UES} within {attach['latency_us']['max'] / 1000:.0f} ms")
    peer.step_gone(verdict, "delete")


def _checked(bench, verdict):
    """Packets both ways, numbered and checked by loadgen at both ends."""
    guest = bench.peer.guest
    shutil.copy(LOADGEN, guest.file("loadgen"))
    guest.sh(f"ip netns exec core /job/loadgen sink --listen {Lab.CORE4}:{SINK_PORT} > /job/sink.log 2>&1 &")
    wait_for(lambda: "sink listens" in guest.get("sink.log"), 10)
    _, figures = _measured(bench, "traffic", "--ues", str(TRAFFIC_UES), "--far", f"{Lab.CORE4}:{SINK_PORT}",
                           "--direction", "both", "--seconds", "2", "--window", "32")
    report = figures(verdict)
    packets = [report[way]["received"] or 0 for way in ("uplink", "downlink")]
    verdict.step("checked", min(packets) > 1000, "+".join(str(count) for count in packets) + " packets")
    bench.peer.step_gone(verdict, "delete")


def _measured(bench, command, *options):
    """Starts a command of loadgen that measures; returns it and what waits for its report."""
    path = bench.lab.path(command + ".json")
    process = bench.lab.spawn("loadgen-" + command, bench.peer.command(command, *options, "--json", path), namespace=bench.ue)

    def figures(verdict):
        status = process.wait(20)
        verdict.step(command, status == 0, "" if status == 0 else process.text()[-300:])
        with open(path) as file:
            return json.load(file)
    return process, figures


def session(bench, verdict):
    """One UE with the kernel's traffic, many, and a few with loadgen's own."""
    _one(bench, verdict)
    _crowd(bench, verdict)
    _checked(bench, verdict)
    bench.peer.step_no_complaint(verdict)
