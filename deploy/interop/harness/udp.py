"""What UEs do over UDP that they do not do over TCP: act(bench, gateway, peer, verdict) on a session that is up."""
import os
import re
import time

from .lab import Lab, wait_for
from .strongswan import Network
from .traffic import Iperf, ping

# How long a session is rekeyed again and again, and how often.
REKEYED_S = int(os.environ.get("SWUGATE_REKEYED_S", "40"))
REKEY_S = 10

# What both ends send meanwhile: what userland ESP carries on a busy machine without dropping any.
STREAM = ("-u", "-b", "4M", "-l", "1000", "--bidir")

# Longest silence of a TCP connection inside when the UE moves (MOBIKE).
STALL_MAX_S = 2.0


def rekeyed_often(bench, _gateway, peer, verdict):
    """IKE and child SAs are rekeyed every few seconds under traffic and no packet is lost: 7296-2.8."""
    before = peer.ike_sa()
    test = Iperf(bench.lab, REKEYED_S, *STREAM)
    client = bench.lab.spawn("iperf3-client", test.argv, namespace=bench.network.ue)
    client.wait(REKEYED_S + 20)
    test.step_nothing_lost(verdict, f"UDP for {REKEYED_S} s", client.text())
    children = len(re.findall(r"CHILD_SA net\{\d+\} established", peer.charon.log())) - 1
    ikes = len(re.findall(r"IKE_SA gw\[\d+\] (?:rekeyed|established)", peer.charon.log())) - 1
    due = REKEYED_S // REKEY_S - 1
    verdict.step("rekeys", children >= due and ikes >= due, f"{children} child, {ikes} IKE")
    verdict.step("another IKE SA", peer.ike_sa() not in (None, before))


def moved(bench, gateway, peer, verdict):
    """The UE's address changes under TCP both ways; RFC 4555 moves the session."""
    before = peer.ike_sa()
    verdict.step("MOBIKE", gateway.sessions()[0]["ike"]["mobike"] is True)
    test = Iperf(bench.lab, 8, "--bidir", "-i", "0.25")
    client = bench.lab.spawn("iperf3-client", test.argv, namespace=bench.network.ue)
    time.sleep(2)
    bench.network.move_ue(Network.UE, Network.UE_MOVED)
    client.wait(25)
    test.step_without_gap(verdict, "traffic across the move", client.text(), STALL_MAX_S)
    _step_told(verdict, gateway, Network.UE_MOVED)
    ping(verdict, "ping", bench.network.execute)
    bench.network.move_ue(Network.UE_MOVED, Network.UE)
    _step_told(verdict, gateway, Network.UE)
    ping(verdict, "ping", bench.network.execute)
    verdict.step("same IKE SA", peer.ike_sa() == before, str(peer.ike_sa()))


def _step_told(verdict, gateway, address):
    told = wait_for(lambda: gateway.sessions()[0]["remote"].startswith(address + ":"), 5, 0.1)
    verdict.step("the gateway was told", bool(told), gateway.sessions()[0]["remote"])


def in_fragments(bench, _gateway, peer, verdict):
    """Chains of certificates that fit no datagram: RFC 7383, both ways."""
    log = peer.charon.log()
    sent = re.search(r"splitting IKE message \((\d+) bytes\) into (\d+) fragments", log)
    verdict.step("fragments sent", bool(sent) and int(sent[1]) > 4000, sent[0] if sent else "")
    received = re.search(r"received fragment #\d+ of (\d+)", log)
    whole = re.search(r"reassembled fragmented IKE message \((\d+) bytes\)", log)
    verdict.step("fragments received", bool(received and whole) and int(whole[1]) > 4000, whole[0] if whole else "")
    ping(verdict, "ping", bench.network.execute)
    ping(verdict, "ping6", bench.network.execute, Lab.CORE6)


def with_ppk(bench, gateway, peer, verdict):
    """Keys that a quantum computer does not give away: RFC 8784."""
    used = gateway.stats()["exchanges"]["ppk_used"]
    verdict.step("PPK", used == 1 and "using PPK for PPK_ID" in peer.charon.log(), f"used {used}")
    run = bench.network.execute
    ping(verdict, "ping", run)
    peer.rekey_child(verdict)
    peer.rekey_ike(verdict)
    ping(verdict, "ping", run)
