"""Two gateways, of which the first sends its UEs to the second (RFC 5685)."""
from . import strongswan
from .gateway import PSK, Swugate
from .lab import Lab, wait_for
from .libreswan import SUITES
from .traffic import ping

# Where the second gateway is, and what it gives.
OTHER, OTHER_POOLS = "10.98.0.9", ("10.65.0.0/16", "fd65::/112")


class Pair:
    """Both gateways in the gateway's namespace; `first` is the bench's."""

    def __init__(self, bench):
        lab = bench.lab
        lab.ip(lab.gw, f"addr replace {OTHER}/24 dev out0")
        self.first = bench.gateway(hosts=(Lab.GATEWAY4,), listen=_udp(Lab.GATEWAY4),
                                   more=f'[redirect]\nto = ["{OTHER}"]\n')
        self.second = Swugate(lab, hosts=(OTHER,), listen=_udp(OTHER), device="swu1", pools=OTHER_POOLS,
                              more='[metrics]\nlisten = ""\n')
        self.lab = lab

    def step_arrived(self, verdict, execute):
        """The UE has its session at the second gateway."""
        arrived = wait_for(lambda: len(self.second.sessions()) == 1, 15, 0.2)
        verdict.step("at the other gateway", bool(arrived))
        if execute:
            ping(verdict, "ping", execute)

    def step_drained(self, verdict, execute=None):
        """An administrator empties the first gateway; it ends when its UEs have gone."""
        drain = self.lab.spawn("drain", [*self.first.command("drain")], namespace=self.lab.gw)
        self.step_arrived(verdict, execute)
        status = drain.wait(20)
        verdict.step("drained", status == 0, drain.text().strip()[-200:])

    def stop(self):
        self.first.stop()
        self.second.stop()
        self.lab.ip(self.lab.gw, f"addr del {OTHER}/24 dev out0")


def _udp(host):
    return f'udp = ["{host}:500", "{host}:4500"]'


def libreswan_drained(bench, verdict):
    """In the middle of a session, over TCP: 9329-7.2-1.

    pluto comes with the selectors of the address it had, so that its Child SA at the other gateway is refused.
    """
    pair, peer = Pair(bench), bench.peer
    peer.attach(verdict, "no-esn", SUITES["no-esn"].esn == "yes")
    ping(verdict, "ping", bench.peer.guest.execute)
    pair.step_drained(verdict)
    peer.delete(verdict, "no-esn")
    pair.stop()


def strongswan_drained(bench, verdict):
    """In the middle of a session, over UDP."""
    pair = Pair(bench)
    bench.network.open_direct()
    bench.lab.ip(bench.network.ue, f"route replace {OTHER} via {strongswan.Network.SHIM}")
    peer = strongswan.Direct(bench.lab, bench.network, PSK)
    peer.attach(verdict)
    ping(verdict, "ping", bench.network.execute)
    pair.step_drained(verdict, bench.network.execute)
    peer.delete(verdict)
    peer.stop()
    pair.stop()
