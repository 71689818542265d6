"""The AAA server stops answering in the middle of a crowd of attaches: who is refused, what is left, how soon it goes on."""
import json
import os
import signal
import subprocess
import time

from .gateway import TARGET
from .lab import wait_for
from .radius import IMSI, K, OPC, Hostapd, configured

LOADGEN = os.path.join(TARGET, "release/loadgen")
UES, RATE = 600, 40
# hostapd is stopped this long, from this moment on.
AFTER_S, OUTAGE_S = 4, 5
# What the gateway waits for an answer: 500 ms, and twice more.
PATIENCE_S = 4


def crowd(bench, verdict):
    """hostapd is stopped for some seconds while UEs attach at a steady rate."""
    pki = bench.pki["rsa"]
    sims = "".join(f"{int(IMSI) + n:015} {K} {OPC} 8000 000000000020\n" for n in range(UES))
    server = Hostapd(bench.lab, sims=sims)
    gateway = bench.gateway("rsa", profiles=False, more=configured(
        bench.lab, pki, ("10.77.0.1:1812",), 'secret_file = "{secret}"\ntimeout_ms = 500\n'))
    report = bench.lab.path("outage.json")
    argv = ["ip", "netns", "exec", bench.lab.gw, LOADGEN, "attach", "--gateway", "127.0.0.1:4500", "--ues", str(UES), "--rate",
            str(RATE), "--auth", "eap-aka", "--imsi", IMSI, "--k", K, "--opc", OPC, "--mnc-digits", "2",
            "--ike", "aes256gcm16-prfsha256-ecp256", "--esp", "aes256gcm16", "--json", report]
    with open(bench.lab.path("loadgen.log"), "w") as log:
        load = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        time.sleep(AFTER_S)
        os.kill(server.process.child.pid, signal.SIGSTOP)
        time.sleep(OUTAGE_S)
        before = gateway.stats()["aaa"][0]["accepts"]
        os.kill(server.process.child.pid, signal.SIGCONT)
        back = time.monotonic()
        again = wait_for(lambda: gateway.stats()["aaa"][0]["accepts"] > before, 10, 0.05)
        recovery = time.monotonic() - back
        load.wait(timeout=60)
    with open(report) as file:
        attach = json.load(file)["attach"]
    failed = sum(attach["failed"].values())
    verdict.step("refused while it was away", 0 < failed <= RATE * (OUTAGE_S + PATIENCE_S) and
                 set(attach["failed"]) == {"NETWORK_FAILURE"}, f"{failed} of {UES}: {attach['failed']}")
    verdict.step("the others attached", attach["ok"] == UES - failed, str(attach["ok"]))
    verdict.step("goes on", bool(again), f"{recovery:.1f} s after it was back")
    records = json.loads(gateway.admin("sessions", "--failed", "--json"))
    verdict.step("recorded", len(records) == failed and all("no AAA server answered" in row["cause"] for row in records))
    stats = gateway.stats()
    verdict.step("nothing left", stats["half_open"] == 0 and not gateway.sessions())
    gateway.stop()
    server.stop()


SESSIONS = [("radius-hostapd-outage", crowd)]
