"""freeDiameter as relay agents between swugate and a SWm server whose EAP is hostapd's."""
import json
import os
import signal
import subprocess
import sys
import time

from . import strongswan
from .gateway import LOADGEN, PSK
from .lab import Lab, run, wait_for
from .strongswan import HERE
from .traffic import ping

REALM, VISITED = "home.example", "visited.example"
AAA = "10.77.0.13"
AGENTS = {"dra1": "10.77.0.11", "dra2": "10.77.0.12"}
RADIUS_SECRET = "radius-interop-secret"
USER, PASSWORD = f"alice@{REALM}", "interop-password"
K, OPC = "465b5ce8b199b49faa5f0a2ee238a6bc", "cd63cb71954a9f4e48a5994e37a02baf"
IMSI = "001010000000001"
HLR = os.path.join(os.environ.get("INTEROP_STATE", "/var/lib/interop"), "hlr_auc_gw")
# RFC 3539 §3.4.1 allows no less.
WATCHDOG_S = 6

_AGENT = """Identity = "{name}.{realm}";
Realm = "{realm}";
Port = 3868;
SecPort = 0;
No_SCTP;
No_IPv6;
ListenOn = "{address}";
TcTimer = 2;
TwTimer = {watchdog};
TLS_Cred = "{cert}", "{key}";
TLS_CA = "{ca}";
LoadExtension = "acl_wl.fdx" : "{directory}/acl_wl.conf";
LoadExtension = "dict_nasreq.fdx";
LoadExtension = "dict_eap.fdx";
ConnectPeer = "aaa.{realm}" {{ ConnectTo = "{aaa}"; Port = 3868; No_TLS; No_SCTP; }};
"""
_GATEWAY = """
[[aaa]]
name = "home"
kind = "diameter"
servers = [{servers}]
server_hosts = [{hosts}]
origin_host = "epdg.{visited}"
destination_realm = "{realm}"
timeout_ms = 3000
watchdog_s = {watchdog}

[[profile]]
name = "phones"
match = {{ idi = "*", idr = "*" }}
auth = "eap-diameter"
aaa = "home"
pool = "default"
local_ts = ["10.77.0.0/24", "2001:db8:77::/64"]
transports = ["tcp", "udp", "tls"]
"""
_HOSTAPD = """driver=none
radius_server_clients={directory}/clients
radius_server_auth_port=1812
eap_server=1
eap_user_file={directory}/users
{database}
"""


class Home:
    """The home network in the lab's core namespace: hostapd, the SWm server, two agents."""

    def __init__(self, lab):
        self.lab, self.eap = lab, []
        for address in (AAA, *AGENTS.values()):
            lab.ip(lab.core, f"addr add {address}/24 dev eth0")
        self.hostapd()
        argv = [sys.executable, os.path.join(HERE, "swm_server.py"), "--listen", f"{AAA}:3868",
                "--identity", f"aaa.{REALM}", "--realm", REALM, "--radius", f"{AAA}:1812:{RADIUS_SECRET}"]
        self.server = lab.spawn("swm-server", argv, namespace=lab.core, stdin=subprocess.PIPE)
        self.answers = 0
        self._next("ready")
        self.agents = {name: self.agent(name) for name in AGENTS}

    def hostapd(self):
        directory = self.lab.directory("hostapd")
        database = ""
        if os.path.exists(HLR):
            socket = os.path.join(directory, "hlr.sock")
            self._write(directory, "milenage", "".join(
                f"{int(IMSI) + n:015} {K} {OPC} 8000 000000000020\n" for n in range(200)))
            self.eap.append(self.lab.spawn("hlr_auc_gw", [HLR, "-s", socket, "-m", os.path.join(directory, "milenage")],
                                           namespace=self.lab.core))
            wait_for(lambda: os.path.exists(socket), 5)
            database = f"eap_sim_db=unix:{socket}"
        self._write(directory, "users", f'"0"* AKA\n"6"* AKA\'\n"{USER}" MSCHAPV2 "{PASSWORD}"\n')
        self._write(directory, "clients", f"0.0.0.0/0 {RADIUS_SECRET}\n")
        self._write(directory, "hostapd.conf", _HOSTAPD.format(directory=directory, database=database))
        self.eap.append(self.lab.spawn("hostapd", ["hostapd", os.path.join(directory, "hostapd.conf")],
                                       namespace=self.lab.core))
        if not wait_for(lambda: ":1812 " in self.lab.exec(self.lab.core, ["ss", "-Hlun"])[1], 8):
            raise RuntimeError("hostapd did not start")

    def agent(self, name):
        """One freeDiameterd, which relays to the SWm server."""
        directory = self.lab.directory(name)
        self._write(directory, "acl_wl.conf", f"ALLOW_OLD_TLS ALLOW_IPSEC *.{VISITED}\n")
        # It wants a certificate of its name, whether it speaks TLS or not.
        cert, key = (os.path.join(directory, file) for file in ("agent.pem", "agent.key"))
        run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}.{REALM}",
             "-keyout", key, "-out", cert])
        self._write(directory, "agent.conf", _AGENT.format(
            name=name, realm=REALM, address=AGENTS[name], watchdog=WATCHDOG_S, directory=directory, aaa=AAA,
            cert=cert, key=key, ca=cert))
        # It looks up the names of whoever connects, and there is nobody to ask.
        return self.lab.spawn(name, ["freeDiameterd", "-c", os.path.join(directory, "agent.conf")],
                              namespace=self.lab.core, env={"RES_OPTIONS": "timeout:1 attempts:1"})

    @staticmethod
    def _write(directory, name, text):
        with open(os.path.join(directory, name), "w") as file:
            file.write(text)

    def _next(self, what):
        lines = wait_for(lambda: len(got := self.server.text().splitlines()) > self.answers and got, 10)
        if not lines:
            raise RuntimeError(f"the SWm server gave no answer to {what}: {self.server.text()[-300:]}")
        self.answers += 1
        return lines[self.answers - 1]

    def do(self, command):
        self.server.child.stdin.write((command + "\n").encode())
        self.server.child.stdin.flush()
        return json.loads(self._next(command))

    def close(self):
        for process in (*self.agents.values(), self.server, *self.eap):
            process.stop()
        for address in (AAA, *AGENTS.values()):
            self.lab.ip(self.lab.core, f"addr del {address}/24 dev eth0")

    def signal(self, name, number):
        """To the agent itself, not to `ip netns exec`, which became it."""
        os.kill(self.agents[name].child.pid, number)


class Phone(strongswan.Direct):
    """strongSwan over UDP that proves itself by EAP-MSCHAPv2."""

    @staticmethod
    def sides(_auth):
        return (f"auth = eap-mschapv2\n    id = {USER}\n    eap_id = {USER}",
                "auth = pubkey\n    cacerts = ca.pem\n    id = gw.test")

    secrets = f'secrets {{ eap {{ id = {USER}\n secret = "{PASSWORD}" }} }}\n'
    plugins = strongswan.PLUGINS + " eap-identity eap-mschapv2"


def _rows(gateway):
    """What swugate says of each agent."""
    return {name: next(row for row in gateway.stats()["aaa"] if row["server"].startswith(address))
            for name, address in AGENTS.items()}


def _step_up(verdict, what, gateway, seconds, **wanted):
    """The agents are up or down as wanted, within so many seconds."""
    begin = time.monotonic()
    seen = wait_for(lambda: {name: row["up"] for name, row in _rows(gateway).items()} == wanted, seconds, 0.1)
    verdict.step(what, bool(seen), f"{time.monotonic() - begin:.1f} s" if seen else str(_rows(gateway)))


class _Surroundings:
    """Home network, gateway and phone of one scenario."""

    def __init__(self, bench, verdict):
        self.lab, self.pki = bench.lab, bench.pki["ecdsa"]
        bench.network.open_direct()
        self.home = Home(self.lab)
        listed = {"servers": [f"{address}:3868" for address in AGENTS.values()],
                  "hosts": [f"{name}.{REALM}" for name in AGENTS]}
        self.gateway = bench.gateway("ecdsa", profiles=False, more=_GATEWAY.format(
            realm=REALM, visited=VISITED, watchdog=WATCHDOG_S,
            **{key: ", ".join(f'"{value}"' for value in values) for key, values in listed.items()}))
        _step_up(verdict, "CER, CEA", self.gateway, 20, dra1=True, dra2=True)

    def phone(self, bench):
        return Phone(self.lab, bench.network, PSK, "eap", self.pki, esp="aes256gcm16,aes128gcm16")

    def close(self, bench, *phones):
        for phone in phones:
            phone.stop()
        self.gateway.stop()
        self.home.close()


def session(bench, verdict):
    """A life through a relay agent: attach, re-authorization, abort, refusal, goodbye. TS 29.273 §7.1.2, RFC 6733 §5, §8."""
    all_of = _Surroundings(bench, verdict)
    gateway, home, phone = all_of.gateway, all_of.home, all_of.phone(bench)
    phone.attach(verdict)
    ping(verdict, "ping", bench.network.execute)
    seen = home.do("stats")
    last = seen["last"]
    as_sent = (last["user"] == USER and last["rat"] and last["outside"] == bench.network.UE
               and last["route"] == [f"epdg.{VISITED}"])
    verdict.step("DER", as_sent and seen["der"] == 3, f"{seen['der']} of them, by way of {last['route']}" if as_sent else str(last))
    home.do("timeout 3600")
    home.do("reauthorize")
    asked = wait_for(lambda: (now := home.do("stats"))["aar"] == 1 and now, 5)
    verdict.step("RAR, AAR", bool(asked) and asked["raa"] == {"2001": 1}, str(asked and asked["raa"]))
    home.do("abort")
    ended = wait_for(lambda: (now := home.do("stats"))["str"] == 1 and now, 8)
    verdict.step("ASR, STR", bool(ended) and ended["asa"] == {"2001": 1} and ended["causes"] == [4]
                 and not ended["sessions"] and not gateway.sessions(), str(ended and (ended["asa"], ended["causes"])))
    home.do("refuse 5450")
    _, said = phone.charon.ctl("--initiate", "--child", "net", "--timeout", "10")
    rejected = _rows(gateway)["dra1"]["rejects"]
    verdict.step("refused", "established with SPIs" not in said and rejected == {"no_non3gpp_subscription": 1}, str(rejected))
    home.do("refuse 0")
    phone.attach(verdict)
    phone.delete(verdict)
    told = wait_for(lambda: (now := home.do("stats"))["str"] == 2 and now, 5)
    verdict.step("STR", bool(told) and told["causes"] == [4, 1] and not told["sessions"], str(told and told["causes"]))
    phone.stop()
    gateway.step_clean(verdict)
    gateway.stop()
    log = home.agents["dra1"].text()
    verdict.step("DPR", "REBOOTING" in log, log[-200:] if "REBOOTING" not in log else "")
    home.close()


def failover(bench, verdict):
    """An agent dies and comes back, another falls silent: RFC 6733 §5.5.4, RFC 3539 §3.4.1."""
    all_of = _Surroundings(bench, verdict)
    gateway, home, phone = all_of.gateway, all_of.home, all_of.phone(bench)
    phone.attach(verdict)
    phone.delete(verdict)
    first = _rows(gateway)
    verdict.step("by the first", first["dra1"]["accepts"] == 1 and not first["dra2"]["requests"])
    home.do("hold")
    waiting = bench.lab.spawn("attach", ["swanctl", "--initiate", "--child", "net", "--timeout", "20", "--uri",
                                         f"unix://{phone.charon.dir}/vici"], namespace=bench.network.ue,
                              env=phone.charon.env)
    wait_for(lambda: _rows(gateway)["dra1"]["requests"] > first["dra1"]["requests"], 5)
    home.signal("dra1", signal.SIGKILL)
    home.do("release")
    moved = wait_for(lambda: _rows(gateway)["dra2"]["retransmissions"] == 1, 5)
    verdict.step("DER moved", bool(moved) and home.do("stats")["retransmitted"] == 1, str(home.do("stats")["retransmitted"]))
    waiting.wait(20)
    verdict.step("attached by the second", "established with SPIs" in waiting.text() and _rows(gateway)["dra2"]["accepts"] == 1)
    ping(verdict, "ping", bench.network.execute)
    phone.delete(verdict)
    home.agents["dra1"].stop()
    home.agents["dra1"] = home.agent("dra1")
    _step_up(verdict, "reconnected", gateway, 40, dra1=True, dra2=True)
    # REOPEN lasts three watchdogs.
    time.sleep(4 * WATCHDOG_S)
    phone.attach(verdict)
    phone.delete(verdict)
    verdict.step("by the first again", _rows(gateway)["dra1"]["accepts"] == 2, str(_rows(gateway)["dra1"]["accepts"]))
    home.signal("dra1", signal.SIGSTOP)
    _step_up(verdict, "silence noticed", gateway, 3 * WATCHDOG_S + 8, dra1=False, dra2=True)
    phone.attach(verdict)
    home.signal("dra1", signal.SIGCONT)
    phone.delete(verdict)
    all_of.close(bench, phone)


def crowd(bench, verdict):
    """A hundred SIMs by EAP-AKA through an agent, each ended by an STR."""
    all_of = _Surroundings(bench, verdict)
    gateway, home = all_of.gateway, all_of.home
    report = bench.lab.path("attach.json")
    status, said = bench.lab.exec(bench.network.mid, [
        LOADGEN, "attach", "--gateway", f"{Lab.GATEWAY4}:4500", "--auth",
        "eap-aka", "--ues", "100", "--rate", "20", "--imsi", IMSI, "--k", K, "--opc", OPC, "--ca",
        all_of.pki.file("ca.pem"), "--ike", "aes256gcm16-prfsha256-ecp256", "--json", report], timeout=90, check=False)
    with open(report) as file:
        attach = json.load(file)["attach"]
    verdict.step("EAP-AKA", status == 0 and attach["ok"] == 100, f"{attach['ok']} of 100, p99 {attach['latency_us']['p99'] // 1000} ms"
                 if status == 0 else said[-300:])
    ended = wait_for(lambda: (now := home.do("stats"))["str"] == 100 and now, 15)
    verdict.step("STR", bool(ended) and not ended["sessions"], str(ended and ended["str"]))
    gateway.step_clean(verdict)
    all_of.close(bench)
