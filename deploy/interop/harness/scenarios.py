"""The scenarios: which peer, which faults, and what must be true afterwards.

Ids such as 9329-6.1-4 name the rows of docs/conformance.md that a scenario proves.
"""
import contextlib
import ipaddress
import os
import re
import time
from dataclasses import dataclass
from typing import Callable

from . import diameter, embedded, emergency, handsets, libreswan, outage, radius, redirect, responder, strongswan, udp
from .bridge import Originated, OriginatedFrom500, OriginatedTls, Relayed
from .gateway import POOLS, PPK_ID, PSK, Swugate
from .lab import Firewall, Lab, wait_for
from .oldkernel import GuestGateway
from .pki import Pki
from .traffic import PINGS, Iperf, iperf_both_ways, ping
from .verdict import StepFailed
from .wire import Capture


# The other outside address of the NAT.
NAT_MOVED = "10.98.0.3"


@dataclass(frozen=True)
class Scenario:
    """One line of the report; `bench` makes its peer's surroundings, kept from scenario to scenario."""
    name: str
    bench: type
    body: Callable
    swugate_only: bool = False


class Certificates(dict):
    """The certificates of a lab by kind, made when first asked for."""

    KINDS = {"rsa": {"kind": "rsa"}, "ecdsa": {"kind": "ecdsa", "intermediate": True},
             "rsa-long": {"kind": "rsa-4096", "intermediate": True, "long": True}}

    def __init__(self, lab):
        super().__init__()
        self.lab = lab

    def __missing__(self, auth):
        options = self.KINDS.get(auth)
        self[auth] = options and Pki(self.lab.path("pki-" + auth), **options)
        return self[auth]


class Bench:
    """A lab with one kind of peer and the certificates both ends use."""

    def __init__(self, stock):
        self.lab, self.stock, self.current = Lab(self.label), stock, None
        try:
            self.pki = Certificates(self.lab)
            self.furnish()
        except BaseException:
            self.lab.keep = True
            self.lab.close()
            raise

    def gateway(self, auth="psk", dpd_s=60, **options):
        """A fresh gateway: swugate, or the stock responder; options: of gateway.write_config."""
        if self.stock:
            self.current = strongswan.Responder(self.lab, PSK, auth, self.pki[auth])
        else:
            self.current = Swugate(self.lab, self.pki[auth], dpd_s, **options)
        return self.current

    def relay(self, first_at_500, tls):
        """A fresh relay in front of a fresh strongSwan."""
        self.current = Relayed(self.lab, PSK, "psk", None, first_at_500, self.pki["ecdsa"] if tls else None)
        return self.current


class GuestBench(Bench):
    """libreswan in its guest."""

    label = "guest"

    def furnish(self):
        self.peer = libreswan.Libreswan(self.lab, PSK, {kind: self.pki[kind] for kind in ("rsa", "ecdsa")})


class HostBench(Bench):
    """Namespaces for strongSwan and the shim; both start afresh for each scenario."""

    label = "host"

    def furnish(self):
        self.network = strongswan.Network(self.lab)


class OldKernelBench(Bench):
    """swugate in the guest, strongSwan and the shim on the host."""

    label = "old"

    def furnish(self):
        self.gateway_guest = GuestGateway(self.lab)
        self.network = strongswan.Network(self.lab, mid=self.lab.gw)


class ResponderBench(Bench):
    """libreswan in its guest as the gateway, loadgen on the host; swugate has no part in it."""

    label = "responder"

    def furnish(self):
        self.ue = responder.network(self.lab)
        self.peer = responder.Responder(self.lab, PSK)


def _in_pool(verdict, addresses):
    pools = [ipaddress.ip_network(pool) for pool in POOLS]
    verdict.step("from the pool", all(any(ipaddress.ip_address(a) in pool for pool in pools) for a in addresses))


def _libreswan(name):
    """Everything a session does, from attach to delete, with one suite: 9329-2-1, 7296-2.8, 7296-2.19."""
    suite = libreswan.SUITES[name]

    def body(bench, verdict):
        peer, run = bench.peer, bench.peer.guest.execute
        gateway = bench.gateway(suite.auth)
        esn = suite.esn == "yes" or suite.esn == "either" and not bench.stock      # swugate prefers ESN
        address = peer.attach(verdict, name, esn)
        _in_pool(verdict, [address])
        ping(verdict, "ping", run)
        iperf_both_ways(verdict, bench.lab, run)
        if not bench.stock:
            gateway.step_session(verdict, [address], esn)
        peer.dpd(verdict)
        peer.rekey_child(verdict, name)
        ping(verdict, "ping", run)
        peer.rekey_ike(verdict, name)
        ping(verdict, "ping", run)
        peer.rekey_child(verdict, name)
        ping(verdict, "ping", run)
        peer.delete(verdict, name)
        peer.step_no_complaint(verdict)
        if not bench.stock:
            gateway.step_clean(verdict)
        gateway.stop()
    return body


def _libreswan_attaches(name, blocked=None, seen="", **options):
    """A session of another kind: other ports, other families, after an obstacle; swugate's counters must show it.

    blocked: what the gateway's firewall drops, as nft says it.  seen: what its statistics must have counted.
    """
    suite = libreswan.SUITES[name]

    def body(bench, verdict):
        peer, run = bench.peer, bench.peer.guest.execute
        gateway = bench.gateway(suite.auth, **options)
        firewall = Firewall(bench.lab, blocked)
        esn = suite.esn == "either"
        address = peer.attach(verdict, name, esn)
        _in_pool(verdict, [address])
        ping(verdict, "ping", run, Lab.CORE4 if suite.inner == 4 else Lab.CORE6)
        gateway.step_session(verdict, [address], esn, transport="udp" if suite.tcp == "no" else "tcp")
        if seen:
            stats = gateway.stats()
            counted = {**stats["exchanges"], **stats["drops"]}.get(seen, 0)
            verdict.step(seen, counted > 0, str(counted))
        if blocked:
            verdict.step("blocked before", firewall.dropped() > 0, f"{firewall.dropped()} packets")
        peer.rekey_child(verdict, name)
        peer.rekey_ike(verdict, name)
        ping(verdict, "ping", run, Lab.CORE4 if suite.inner == 4 else Lab.CORE6)
        peer.delete(verdict, name)
        peer.step_no_complaint(verdict)
        gateway.step_clean(verdict)
        firewall.open()
        gateway.stop()
    return body


def _strongswan(act, auth="psk", dpd_s=60, clean=True, ue=strongswan.Initiator, **options):
    """Attaches, lets act(bench, gateway, peer, verdict) work, deletes."""
    tls = ue is OriginatedTls

    def body(bench, verdict):
        gateway = bench.gateway(auth, dpd_s, tls=bench.pki["ecdsa"] if tls else None)
        peer = ue(bench.lab, bench.network, PSK, "psk" if auth == "psk" else "pubkey", bench.pki[auth], **options)
        addresses = peer.attach(verdict)
        _in_pool(verdict, addresses)
        if not bench.stock:
            gateway.step_session(verdict, addresses, esn=False, transport="tls" if tls else "tcp")
        act(bench, gateway, peer, verdict)
        if peer.ike_sa():
            peer.delete(verdict)
        if clean and not bench.stock:
            gateway.step_clean(verdict)
        peer.stop()
        gateway.stop()
    return body


def _udp(act, nat=None, auth="psk", clean=True, gateway_options=None, **options):
    """As _strongswan, over UDP: IKE on port 500 and then 4500, ESP in UDP. 7296-2.1, 7296-2.23.

    nat: source ports that a NAT in front of the UE uses.
    """
    def body(bench, verdict):
        if nat:
            bench.network.nat(nat)
        else:
            bench.network.open_direct()
        gateway = bench.gateway(auth, **(gateway_options or {}))
        peer = strongswan.Direct(bench.lab, bench.network, PSK, "psk" if auth == "psk" else "pubkey",
                                 bench.pki[auth], **options)
        addresses = peer.attach(verdict)
        _in_pool(verdict, addresses)
        gateway.step_session(verdict, addresses, esn=False, transport="udp")
        act(bench, gateway, peer, verdict)
        if peer.ike_sa():
            peer.delete(verdict)
        if clean:
            gateway.step_clean(verdict)
        peer.stop()
        gateway.stop()
        if nat:
            bench.network.no_nat()
    return body


def _rebound(bench, gateway, peer, verdict):
    """The NAT changes under traffic; the next authentic packet moves the session: 7296-2.23."""
    before, remote = peer.ike_sa(), gateway.sessions()[0]["remote"]
    verdict.step("behind the NAT", re.fullmatch(rf"{re.escape(Lab.UE4)}:20[01]\d\d", remote) is not None, remote)
    test = Iperf(bench.lab, 6, "--bidir")
    client = bench.lab.spawn("iperf3-client", test.argv, namespace=bench.network.ue)
    for old, new in ((Lab.UE4, NAT_MOVED), (NAT_MOVED, Lab.UE4), (Lab.UE4, NAT_MOVED)):
        time.sleep(1.5)
        bench.network.move_nat(old, new)
    client.wait(25)
    test.step(verdict, "traffic across 3 new mappings", client.text(), to_the_end=True)
    after = gateway.sessions()[0]["remote"]
    verdict.step("the gateway followed", after.startswith(NAT_MOVED + ":"), f"{remote} to {after}")
    verdict.step("same IKE SA", peer.ike_sa() == before, str(peer.ike_sa()))
    _short_session(bench, gateway, peer, verdict)
    bench.network.move_nat(NAT_MOVED, Lab.UE4)


def _mobike_rebound(bench, gateway, peer, verdict):
    """With MOBIKE the UE finds the NAT's new mapping by DPD and says so; until then the gateway stays: RFC 4555 3.8."""
    before, remote = peer.ike_sa(), gateway.sessions()[0]["remote"]
    verdict.step("MOBIKE", gateway.sessions()[0]["ike"]["mobike"] is True)
    # strongSwan compares the answers of two DPDs, one before the change and one after.
    peer.dpd(verdict)
    test = Iperf(bench.lab, 10, "--bidir")
    client = bench.lab.spawn("iperf3-client", test.argv, namespace=bench.network.ue)
    time.sleep(1.5)
    bench.network.move_nat(Lab.UE4, NAT_MOVED)
    client.wait(30)
    test.step(verdict, "traffic across a new mapping", client.text(), to_the_end=True)
    after = gateway.sessions()[0]["remote"]
    verdict.step("the gateway was told", after.startswith(NAT_MOVED + ":"), f"{remote} to {after}")
    verdict.step("same IKE SA", peer.ike_sa() == before, str(peer.ike_sa()))
    bench.network.move_nat(NAT_MOVED, Lab.UE4)


def _whole_session(bench, _gateway, peer, verdict):
    run = bench.network.execute
    ping(verdict, "ping", run)
    ping(verdict, "ping6", run, Lab.CORE6)
    iperf_both_ways(verdict, bench.lab, run)
    peer.dpd(verdict)
    peer.rekey_child(verdict)
    ping(verdict, "ping", run)
    peer.rekey_ike(verdict)
    ping(verdict, "ping", run)
    peer.rekey_child(verdict)
    ping(verdict, "ping6", run, Lab.CORE6)


def _short_session(bench, _gateway, peer, verdict):
    run = bench.network.execute
    ping(verdict, "ping", run)
    iperf_both_ways(verdict, bench.lab, run, seconds=1)
    peer.rekey_child(verdict)
    peer.rekey_ike(verdict)
    ping(verdict, "ping", run)


def _other_group_first(bench, gateway, peer, verdict):
    """The first key exchange is of an unwanted group; the retry comes on the same connection: 9329-6.4-1."""
    log = peer.charon.log()
    verdict.step("INVALID_KE_PAYLOAD", "peer didn't accept DH group ECP_521, it requested ECP_256" in log)
    verdict.step("one connection", peer.shim.stats()["connections"] == 1)
    _whole_session(bench, gateway, peer, verdict)


def _broken(fault):
    """The connection breaks under traffic both ways and comes back from another port; the session must not notice.

    9329-6.1-4, 9329-6.1-5, 9329-6.1-10, 9329-10-5; with cut also 9329-6.1-7.
    """
    def act(bench, _gateway, peer, verdict):
        before = peer.ike_sa()
        test = Iperf(bench.lab, 6, "--bidir")
        client = bench.lab.spawn("iperf3-client", test.argv, namespace=bench.network.ue)
        for _ in range(3):
            time.sleep(1.5)
            peer.shim.do(fault)
        client.wait(25)
        test.step(verdict, f"traffic across 3 x {fault}", client.text(), to_the_end=True)
        connections = peer.shim.stats()["connections"]
        verdict.step("connections", connections == 4, str(connections))
        verdict.step("same IKE SA", peer.ike_sa() == before, str(peer.ike_sa()))
        ping(verdict, "ping", bench.network.execute)
        peer.dpd(verdict)
        peer.shim.do(fault)
        peer.rekey_child(verdict)
        ping(verdict, "ping", bench.network.execute)
        peer.shim.do(fault)
        peer.rekey_ike(verdict)
        ping(verdict, "ping", bench.network.execute)
    return act


def _broken_downlink(bench, _gateway, peer, verdict):
    """With traffic downwards only the gateway must wait for the UE; its next message brings the traffic back."""
    before = peer.ike_sa()
    test = Iperf(bench.lab, 10, "-R")
    client = bench.lab.spawn("iperf3-client", test.argv, namespace=bench.network.ue)
    time.sleep(1.5)
    peer.shim.do("rst")
    client.wait(30)
    test.step(verdict, "download across a reset", client.text(), to_the_end=True)
    verdict.step("same IKE SA", peer.ike_sa() == before, str(peer.ike_sa()))


def _gateway_dpd(bench, gateway, peer, verdict):
    """A silent UE is asked by the gateway, and answers."""
    ping(verdict, "ping", bench.network.execute)
    seen = wait_for(lambda: "generating INFORMATIONAL response 0 [ ]" in peer.charon.log(), 10, 0.2)
    verdict.step("gateway's DPD answered", bool(seen))
    time.sleep(3)
    verdict.step("still one session", len(gateway.sessions()) == 1)
    ping(verdict, "ping", bench.network.execute)


def _terminate(bench, gateway, peer, verdict):
    """The administrator ends the session, the UE gets a DELETE: 9329-6.1-2."""
    ping(verdict, "ping", bench.network.execute)
    gateway.admin("terminate", str(gateway.sessions()[0]["id"]))
    seen = wait_for(lambda: "received DELETE for IKE_SA gw" in peer.charon.log(), 5, 0.1)
    verdict.step("DELETE reached the UE", bool(seen))
    verdict.step("session gone", bool(wait_for(lambda: not gateway.sessions(), 5, 0.2)))


def _drained(bench, gateway, peer, verdict):
    """SIGTERM sends DELETE to the UE and ends the process with status 0 within 5 s."""
    ping(verdict, "ping", bench.network.execute)
    start = time.monotonic()
    status = gateway.process.stop(grace=10)
    seconds = time.monotonic() - start
    verdict.step("exit on SIGTERM", status == 0 and seconds < 5, f"status {status} after {seconds:.1f}s")
    verdict.step("DELETE reached the UE", "received DELETE for IKE_SA gw" in peer.charon.log())


def _read_by_tshark(bench, verdict):
    """A capture of a whole session, read by tshark with swugate's key tables."""
    for label, options in (("gcm", {}), ("cbc", {"ike": "aes256-sha256-modp2048", "esp": "aes256-sha256"})):
        gateway = bench.gateway()
        capture = Capture(bench.lab, gateway, label)
        peer = strongswan.Initiator(bench.lab, bench.network, PSK, **options)
        peer.attach(verdict)
        ping(verdict, "ping", bench.network.execute)
        rekeys = (peer.rekey_child, peer.rekey_ike, peer.rekey_child)
        for rekey in rekeys:
            rekey(verdict)
            ping(verdict, "ping", bench.network.execute)
        peer.delete(verdict)
        capture.finish()
        capture.step_decrypted(verdict, PINGS * (1 + len(rekeys)))
        peer.stop()
        gateway.stop()


def _old_kernel(bench, verdict):
    """The ring without what kernels after 6.1 have, from attach to delete across a reset."""
    run = bench.network.execute
    peer = strongswan.Initiator(bench.lab, bench.network, PSK, gateway=bench.gateway_guest.ADDRESS)
    _in_pool(verdict, peer.attach(verdict))
    verdict.step("kernel", bench.gateway_guest.release.startswith("6.1."), bench.gateway_guest.release)
    ping(verdict, "ping", run)
    iperf_both_ways(verdict, bench.lab, run, server=bench.gateway_guest.guest.iperf_server)
    before = peer.ike_sa()
    peer.shim.do("rst")
    ping(verdict, "ping after a reset", run)
    verdict.step("same IKE SA", peer.ike_sa() == before)
    peer.rekey_child(verdict)
    peer.rekey_ike(verdict)
    ping(verdict, "ping", run)
    peer.delete(verdict)
    peer.stop()
    verdict.step("exit on SIGTERM", bench.gateway_guest.stop() == 0)


# Resets of the connection, the time between them, and the time after the last one.
RESETS, RESET_EVERY_S, AFTER_RESETS_S = 12, 5, 10


def _whole_session_measured(bench, gateway, peer, verdict):
    """A session of its own kind, and what a gigabyte through the relay costs it."""
    gateway.step_mapped(verdict)
    cpu_s, octets = gateway.cpu_s(), gateway.octets()
    _whole_session(bench, gateway, peer, verdict)
    cpu_s, octets = gateway.cpu_s() - cpu_s, gateway.octets() - octets
    verdict.step("relay CPU", octets > 1e6, f"{cpu_s / octets * 1e9:.2f} s/GB of {octets / 1e6:.0f} MB")


def _reset_for_a_minute(bench, _gateway, peer, verdict):
    """The connection is reset every 5 s under traffic both ways; the IKE SA stays: 9329-6.1-o3, 9329-6.2-o1."""
    before = peer.ike_sa()
    test = Iperf(bench.lab, RESETS * RESET_EVERY_S + AFTER_RESETS_S, "--bidir")
    client = bench.lab.spawn("iperf3-client", test.argv, namespace=bench.network.ue)
    for _ in range(RESETS):
        time.sleep(RESET_EVERY_S)
        peer.shim.do("rst")
    client.wait(40)
    test.step(verdict, f"traffic across {RESETS} resets", client.text(), to_the_end=AFTER_RESETS_S)
    connections = peer.shim.stats()["connections"]
    verdict.step("connections", connections > RESETS, str(connections))
    verdict.step("same IKE SA", peer.ike_sa() == before, str(peer.ike_sa()))
    ping(verdict, "ping", bench.network.execute)
    peer.rekey_child(verdict)
    peer.rekey_ike(verdict)
    ping(verdict, "ping", bench.network.execute)


def _resumed_for_a_minute(bench, gateway, peer, verdict):
    """As _reset_for_a_minute; each new connection resumes TLS: 9329-B.3-o1, 9329-A-3."""
    _reset_for_a_minute(bench, gateway, peer, verdict)
    stats = peer.shim.stats()
    verdict.step("resumed", stats["resumed"] == stats["connections"] - 1, f"{stats['resumed']} of {stats['connections']}")


# What openssl offers, and what it must come to: a protocol and cipher, or nothing.
_OFFERS = {
    "TLS 1.3": (["-tls1_3"], "TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384"),
    "TLS 1.2": (["-tls1_2"], "TLSv1.2, Cipher is ECDHE-ECDSA-AES256-GCM-SHA384"),
    "ChaCha20": (["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], "Cipher is ECDHE-ECDSA-CHACHA20-POLY1305"),
    "TLS 1.1": (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], None),
    "TLS 1.0": (["-tls1", "-cipher", "ALL:@SECLEVEL=0"], None),
    "CBC": (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA384"], None),
    "static RSA": (["-tls1_2", "-cipher", "AES128-GCM-SHA256"], None),
    "NULL": (["-tls1_2", "-cipher", "ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0"], None),
}


def _openssl(bench, verdict):
    """What openssl's client sees of the TLS port: 9329-A-2, 9329-B.1-1, 9329-B.3-o1."""
    gateway = bench.gateway(tls=bench.pki["ecdsa"])
    client = ["timeout", "5", "openssl", "s_client", "-connect", f"{Lab.GATEWAY4}:{Lab.TLS_PORT}",
              "-servername", "gw.test", "-CAfile", bench.lab.path("pki-ecdsa/ca.pem")]

    def ask(*options):
        command = " ".join([*client, *options])
        return bench.lab.exec(bench.network.mid, ["sh", "-c", f"sleep 0.3 | {command} 2>&1"], check=False)[1]

    for name, (options, wanted) in _OFFERS.items():
        said = ask(*options)
        agreed = next((line for line in said.splitlines() if "Cipher is" in line), "")
        right = wanted in agreed if wanted else "Cipher is (NONE)" in agreed or not agreed
        verdict.step(name, right, agreed)
    said = ask("-tls1_3")
    verdict.step("certificate", "Verify return code: 0 (ok)" in said, "")
    verdict.step("none asked of the client", "No client certificate CA names sent" in said, "")
    ticket = bench.lab.path("session.pem")
    ask("-tls1_3", "-sess_out", ticket)
    verdict.step("resumed", "Reused, TLSv1.3" in ask("-tls1_3", "-sess_in", ticket), "")
    verdict.step("no early data", "Max Early Data: 0" in said, "")
    drops = gateway.stats()["drops"]
    verdict.step("counted", drops["tls_handshake"] == sum(wanted is None for _, wanted in _OFFERS.values()),
                 str(drops["tls_handshake"]))
    gateway.stop()


def _relayed(act, first_at_500=False, ue=Originated, **options):
    """strongSwan, originate, TCP, relay, strongSwan: neither end knows of TCP."""
    def body(bench, verdict):
        gateway = bench.relay(first_at_500, ue is OriginatedTls)
        peer = ue(bench.lab, bench.network, PSK, **options)
        _in_pool(verdict, peer.attach(verdict))
        act(bench, gateway, peer, verdict)
        peer.delete(verdict)
        peer.stop()
        gateway.stop()
    return body


SCENARIOS = [
    *(Scenario(f"libreswan-{name}", GuestBench, _libreswan(name), swugate_only=libreswan.SUITES[name].esn == "yes")
      for name in libreswan.WHOLE),
    Scenario("libreswan-port-443", GuestBench, _libreswan_attaches("port-443", ports=(443, 4500)), swugate_only=True),
    Scenario("libreswan-fallback", GuestBench, _libreswan_attaches(
        "fallback", blocked="udp dport { 500, 4500 }", ports=(443,)), swugate_only=True),
    Scenario("libreswan-udp", GuestBench, _libreswan_attaches("udp"), swugate_only=True),
    Scenario("libreswan-udp-cookie", GuestBench, _libreswan_attaches(
        "udp", seen="cookies_returned", limits="cookies_from = 0"), swugate_only=True),
    Scenario("libreswan-invalid-ke", GuestBench, _libreswan_attaches("invalid-ke", seen="ike_invalid_ke"), swugate_only=True),
    Scenario("libreswan-puzzle", GuestBench, _libreswan_attaches(
        "no-esn", seen="unsolved_served", limits="puzzles_from = 0"), swugate_only=True),
    Scenario("libreswan-redirect", GuestBench, redirect.libreswan_drained, swugate_only=True),
    Scenario("libreswan-ipv6-in-ipv6", GuestBench, _libreswan_attaches("ipv6-in-ipv6", pools=POOLS[1:]), swugate_only=True),
    Scenario("libreswan-ipv6-in-ipv4", GuestBench, _libreswan_attaches("ipv6-in-ipv4", pools=POOLS[1:]), swugate_only=True),
    Scenario("libreswan-ipv4-in-ipv6", GuestBench, _libreswan_attaches("ipv4-in-ipv6"), swugate_only=True),
    Scenario("libreswan-ipv4-in-ipv6-udp", GuestBench, _libreswan_attaches("ipv4-in-ipv6-udp"), swugate_only=True),
    Scenario("strongswan-psk", HostBench, _strongswan(_whole_session)),
    Scenario("strongswan-cbc", HostBench, _strongswan(
        _short_session, ike="aes256-sha256-modp2048", esp="aes128-sha256")),
    Scenario("strongswan-rsa-invalid-ke", HostBench, _strongswan(
        _other_group_first, auth="rsa", ike="aes256gcm16-prfsha256-ecp521-ecp256")),
    Scenario("strongswan-ecdsa-outer-ipv6", HostBench, _strongswan(
        _short_session, auth="ecdsa", gateway=f"[{Lab.GATEWAY6}]", ike="aes256-sha512-ecp384"), swugate_only=True),
    Scenario("strongswan-split-1", HostBench, _strongswan(_short_session, split=1)),
    Scenario("strongswan-split-7", HostBench, _strongswan(_short_session, split=7)),
    Scenario("strongswan-coalesced", HostBench, _strongswan(_short_session, coalesce=20)),
    Scenario("strongswan-fin", HostBench, _strongswan(_broken("fin"), clean=False)),
    Scenario("strongswan-rst", HostBench, _strongswan(_broken("rst"), clean=False)),
    Scenario("strongswan-cut-mid-frame", HostBench, _strongswan(_broken("cut"), clean=False)),
    Scenario("strongswan-rst-downlink", HostBench, _strongswan(_broken_downlink, clean=False)),
    Scenario("strongswan-gateway-dpd", HostBench, _strongswan(_gateway_dpd, dpd_s=2, dpd=60), swugate_only=True),
    Scenario("strongswan-terminate", HostBench, _strongswan(_terminate), swugate_only=True),
    Scenario("strongswan-drain", HostBench, _strongswan(_drained, clean=False), swugate_only=True),
    Scenario("udp-strongswan-psk", HostBench, _udp(_whole_session), swugate_only=True),
    Scenario("udp-strongswan-cbc", HostBench, _udp(
        _short_session, ike="aes256-sha256-modp2048", esp="aes128-sha256"), swugate_only=True),
    Scenario("udp-strongswan-rsa", HostBench, _udp(_short_session, auth="rsa"), swugate_only=True),
    Scenario("udp-strongswan-nat", HostBench, _udp(_rebound, nat="20000-20100", mobike="no"), swugate_only=True),
    Scenario("udp-strongswan-mobike-nat", HostBench, _udp(
        _mobike_rebound, nat="20000-20100", clean=False), swugate_only=True),
    Scenario("udp-strongswan-outer-ipv6", HostBench, _udp(_short_session, gateway=Lab.GATEWAY6), swugate_only=True),
    Scenario("udp-strongswan-moves", HostBench, _udp(udp.moved, clean=False), swugate_only=True),
    Scenario("udp-strongswan-fragments", HostBench, _udp(udp.in_fragments, auth="rsa-long"), swugate_only=True),
    Scenario("udp-strongswan-rekeyed-often", HostBench, _udp(
        udp.rekeyed_often, rekey=f"{udp.REKEY_S}s"), swugate_only=True),
    Scenario("udp-strongswan-ppk", HostBench, _udp(
        udp.with_ppk, gateway_options={"profile": 'ppk = "required"'}, more=f"ppk_id = {PPK_ID}\n  ppk_required = yes"),
        swugate_only=True),
    Scenario("udp-strongswan-redirect", HostBench, redirect.strongswan_drained, swugate_only=True),
    Scenario("originate", HostBench, _strongswan(_whole_session, ue=Originated), swugate_only=True),
    Scenario("originate-rsa-port-500", HostBench, _strongswan(
        _short_session, auth="rsa", ue=OriginatedFrom500), swugate_only=True),
    Scenario("originate-outer-ipv6", HostBench, _strongswan(
        _short_session, ue=Originated, gateway=f"[{Lab.GATEWAY6}]"), swugate_only=True),
    Scenario("originate-reset-for-a-minute", HostBench, _strongswan(
        _reset_for_a_minute, clean=False, ue=Originated), swugate_only=True),
    Scenario("originate-tls", HostBench, _strongswan(_whole_session, ue=OriginatedTls), swugate_only=True),
    Scenario("originate-tls-reset-for-a-minute", HostBench, _strongswan(
        _resumed_for_a_minute, clean=False, ue=OriginatedTls), swugate_only=True),
    Scenario("tls-openssl", HostBench, _openssl, swugate_only=True),
    Scenario("relay", HostBench, _relayed(_whole_session_measured), swugate_only=True),
    Scenario("relay-port-500", HostBench, _relayed(_short_session, first_at_500=True, ue=OriginatedFrom500), swugate_only=True),
    Scenario("relay-tls", HostBench, _relayed(_whole_session_measured, ue=OriginatedTls), swugate_only=True),
    Scenario("relay-reset-for-a-minute", HostBench, _relayed(_reset_for_a_minute, dpd=1), swugate_only=True),
    Scenario("diameter-session", HostBench, diameter.session, swugate_only=True),
    Scenario("diameter-failover", HostBench, diameter.failover, swugate_only=True),
    *([Scenario("diameter-crowd", HostBench, diameter.crowd, swugate_only=True)] if os.path.exists(diameter.HLR) else []),
    *(Scenario(name, HostBench, body, swugate_only=True) for name, body in radius.SESSIONS),
    *(Scenario(name, HostBench, body, swugate_only=True) for name, body in embedded.SESSIONS),
    *(Scenario(name, HostBench, body, swugate_only=True) for name, body in handsets.SESSIONS),
    *(Scenario(name, HostBench, body, swugate_only=True) for name, body in emergency.SESSIONS),
    *(Scenario(name, HostBench, body, swugate_only=True) for name, body in outage.SESSIONS),
    Scenario("tshark-decrypts", HostBench, _read_by_tshark, swugate_only=True),
    Scenario("libreswan-responder", ResponderBench, responder.session, swugate_only=True),
    Scenario("linux-6.1", OldKernelBench, _old_kernel, swugate_only=True),
]


def judge(scenario, bench, verdict):
    """Runs one scenario; whatever goes wrong is in its verdict."""
    try:
        scenario.body(bench, verdict)
    except StepFailed:
        pass                                # already in the verdict
    except Exception as failure:            # one scenario never ends the run
        verdict.error(failure)
    if verdict.failed and bench.current:
        with contextlib.suppress(Exception):
            bench.current.evidence()
