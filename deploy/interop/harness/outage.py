"""The AAA server stops answering in the middle of a crowd of attaches: who is refused, what is left, how soon it goes on."""
import json
import os
import signal
import subprocess
import time

from .gateway import LOADGEN
from .lab import wait_for
from .radius import IMSI, K, OPC, Hostapd, configured

UES, RATE = 600, 40
# hostapd is stopped this long, from this moment on.
AFTER_S, SHORT_S, LONG_S = 4, 5, 10
# What the gateway waits for an answer where it is told to: 500 ms, and twice more.
PATIENCE_S = 4
_IMPATIENT = "timeout_ms = 500\nretries = 2\n"


def crowd(bench, verdict):
    """The server is away for longer than the gateway waits: who came meanwhile is refused, and said so."""
    gateway, attach, recovery = _through_an_outage(bench, SHORT_S, _IMPATIENT)
    failed = sum(attach["failed"].values())
    verdict.step("refused while it was away", 0 < failed <= RATE * (SHORT_S + PATIENCE_S) and
                 set(attach["failed"]) == {"NETWORK_FAILURE"}, f"{failed} of {UES}: {attach['failed']}")
    verdict.step("the others attached", attach["ok"] == UES - failed, str(attach["ok"]))
    verdict.step("goes on", recovery is not None, f"{recovery:.1f} s after it was back")
    records = json.loads(gateway.admin("sessions", "--failed", "--json"))
    verdict.step("recorded", len(records) == failed and all("no AAA server answered" in row["cause"] for row in records))
    stats = gateway.stats()
    verdict.step("nothing left", stats["half_open"] == 0 and not gateway.sessions())
    gateway.stop()


def outlasted(bench, verdict):
    """The server is away for less than the gateway waits by default: everybody waits, and nobody is refused."""
    gateway, attach, recovery = _through_an_outage(bench, LONG_S, "", "--timeout", "40")
    verdict.step("all attached", attach["ok"] == UES, f"{attach['ok']} of {UES}, p99 {attach['latency_us']['p99'] // 1000} ms"
                 if attach["ok"] == UES else str(attach["failed"]))
    verdict.step("goes on", recovery is not None, f"{recovery:.1f} s after it was back")
    row, stats = gateway.stats()["aaa"][0], gateway.stats()
    verdict.step("nothing left", stats["half_open"] == 0 and not gateway.sessions() and row["requests"] == row["answers"],
                 f"{row['requests']} requests, {row['retransmissions']} repetitions, {row['timeouts']} timeouts")
    gateway.stop()


def _through_an_outage(bench, outage_s, more, *options):
    """hostapd is stopped for some seconds while UEs attach at a steady rate; returns the gateway, what the UEs saw, and how
    long after the end of it the next one was let in, `None` when none was.
    """
    pki = bench.pki["rsa"]
    sims = "".join(f"{int(IMSI) + n:015} {K} {OPC} 8000 000000000020\n" for n in range(UES))
    server = Hostapd(bench.lab, sims=sims)
    gateway = bench.gateway("rsa", profiles=False, more=configured(
        bench.lab, pki, ("10.77.0.1:1812",), 'secret_file = "{secret}"\n' + more))
    report = bench.lab.path("outage.json")
    argv = ["ip", "netns", "exec", bench.lab.gw, LOADGEN, "attach", "--gateway", "127.0.0.1:4500", "--ues", str(UES), "--rate",
            str(RATE), "--auth", "eap-aka", "--imsi", IMSI, "--k", K, "--opc", OPC, "--mnc-digits", "2",
            "--ike", "aes256gcm16-prfsha256-ecp256", "--esp", "aes256gcm16", "--json", report, *options]
    with open(bench.lab.path("loadgen.log"), "w") as log:
        load = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        time.sleep(AFTER_S)
        os.kill(server.process.child.pid, signal.SIGSTOP)
        time.sleep(outage_s)
        before = gateway.stats()["aaa"][0]["accepts"]
        os.kill(server.process.child.pid, signal.SIGCONT)
        back = time.monotonic()
        again = wait_for(lambda: gateway.stats()["aaa"][0]["accepts"] > before, 10, 0.05)
        recovery = time.monotonic() - back if again else None
        load.wait(timeout=90)
    with open(report) as file:
        attach = json.load(file)["attach"]
    server.stop()
    return gateway, attach, recovery


SESSIONS = [("radius-hostapd-outage", crowd), ("radius-hostapd-outage-outlasted", outlasted)]
