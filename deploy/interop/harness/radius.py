"""RADIUS servers behind the gateway: hostapd with an authentication centre, and FreeRADIUS; and strongSwan as their UE."""
import os
import re
import subprocess

from .bridge import Originated
from .gateway import PSK
from .lab import Lab, run, wait_for
from .strongswan import PLUGINS, Direct
from .traffic import iperf_both_ways, ping

STATE = os.environ.get("INTEROP_STATE", "/var/lib/interop")
SECRET = "interop-radius-secret"

# Test set 1 of 3GPP TS 35.208.
IMSI, K, OPC = "001010000000001", "465b5ce8b199b49faa5f0a2ee238a6bc", "cd63cb71954a9f4e48a5994e37a02baf"
NAI = f"0{IMSI}@nai.epc.mnc001.mcc001.3gppnetwork.org"
USER, PASSWORD = "alice", "interop-password"

_HOSTAPD = """driver=none
radius_server_clients={directory}/clients
radius_server_auth_port=1812
eap_server=1
eap_user_file={directory}/users
eap_sim_db=unix:{directory}/hlr.sock
"""
# An SQN far behind the USIM's: the first attach resynchronises.
_MILENAGE = f"{IMSI} {K} {OPC} 8000 000000000020\n"

_RADIUSD = """prefix = /usr
libdir = {libraries}/usr/lib/freeradius
logdir = {directory}
run_dir = {directory}
max_requests = 16384
security {{
  max_attributes = 200
  reject_delay = 0
  status_server = yes
}}
thread pool {{
  start_servers = 2
  max_servers = 4
}}
client gateway {{
  ipaddr = 10.77.0.254
  secret = {secret}
  require_message_authenticator = yes
}}
clients radsec {{
  client gateway {{
    ipaddr = 10.77.0.254
    proto = tls
    secret = radsec
  }}
}}
modules {{
  eap {{
    default_eap_type = {method}
    mschapv2 {{
    }}
    tls-config common {{
      private_key_file = {pki}/gw.key
      certificate_file = {pki}/gw.pem
      ca_file = {pki}/ca.pem
      tls_min_version = "1.2"
      tls_max_version = "1.2"
    }}
    tls {{
      tls = common
    }}
  }}
  mschap {{
  }}
  files {{
    usersfile = {directory}/users
  }}
  detail {{
    filename = {directory}/detail
  }}
  always ok {{
    rcode = ok
  }}
}}
server default {{
  listen {{
    type = auth
    ipaddr = *
    port = 1812
  }}
  listen {{
    type = acct
    ipaddr = *
    port = 1813
  }}
  listen {{
    type = auth+acct
    ipaddr = *
    port = 2083
    proto = tcp
    clients = radsec
    tls {{
      private_key_file = {pki}/gw.key
      certificate_file = {pki}/gw.pem
      ca_file = {pki}/ca.pem
      require_client_cert = yes
      tls_min_version = "1.2"
      tls_max_version = "1.3"
    }}
  }}
  authorize {{
    files
    eap
  }}
  authenticate {{
    Auth-Type MS-CHAP {{
      mschap
    }}
    eap
  }}
  accounting {{
    detail
    ok
  }}
}}
"""
# What an accepted UE gets: an address of the pool, and a Class that accounting must bring back.
_REPLY = """  Framed-IP-Address = 10.64.7.9,
  Session-Timeout = {timeout},
  Class = "interop",
  Acct-Interim-Interval = 60
"""
_AAA = """[[aaa]]
name = "home"
kind = "radius"
servers = [{servers}]
{more}
"""
_PROFILE = """[[profile]]
name = "eap"
auth = "eap-radius"
aaa = "home"
pool = "default"
local_ts = ["10.77.0.0/24", "2001:db8:77::/64"]
ike = ["aes256gcm16-prfsha256-ecp256"]
esp = ["aes256gcm16"]
"""


class Hostapd:
    """hostapd as a RADIUS server with EAP-AKA, and hlr_auc_gw, which knows the SIM."""

    def __init__(self, lab, users='"0"* AKA\n', sims=_MILENAGE, more=""):
        self.dir = lab.directory("hostapd")
        for name, text in (("clients", f"10.77.0.254 {SECRET}\n"), ("users", users), ("milenage", sims),
                           ("hostapd.conf", _HOSTAPD.format(directory=self.dir) + more)):
            with open(os.path.join(self.dir, name), "w") as file:
                file.write(text)
        socket = os.path.join(self.dir, "hlr.sock")
        self.centre = lab.spawn("hlr_auc_gw", [os.path.join(STATE, "hlr_auc_gw"), "-s", socket, "-m",
                                               os.path.join(self.dir, "milenage")], namespace=lab.core)
        wait_for(lambda: os.path.exists(socket), 5)
        self.process = lab.spawn("hostapd", ["hostapd", "-dd", os.path.join(self.dir, "hostapd.conf")], namespace=lab.core)
        _wait_for_udp(lab, 1812, self.process)

    def stop(self):
        self.process.stop()
        self.centre.stop()


class FreeRadius:
    """FreeRADIUS with EAP-MSCHAPv2 and EAP-TLS, accounting into a file, over UDP and TLS."""

    def __init__(self, lab, pki, method, timeout=3600, user=USER):
        self.lab, self.dir = lab, lab.directory("freeradius")
        libraries = os.path.join(STATE, "freeradius")
        users = f'{user} Cleartext-Password := "{PASSWORD}"\n' if method == "mschapv2" else "DEFAULT\n"
        for name, text in (("users", users + _REPLY.format(timeout=timeout)), ("radiusd.conf", _RADIUSD.format(
                directory=self.dir, libraries=libraries, secret=SECRET, method=method, pki=pki.dir))):
            with open(os.path.join(self.dir, name), "w") as file:
                file.write(text)
        binary = os.path.join(libraries, "usr/sbin/freeradius")
        self.process = lab.spawn("freeradius", [binary, "-fxx", "-l", "stdout", "-d", self.dir], namespace=lab.core)
        _wait_for_udp(lab, 1812, self.process)

    def records(self):
        """Accounting records so far, each a dictionary of its attributes."""
        try:
            with open(os.path.join(self.dir, "detail")) as file:
                blocks = file.read().split("\n\n")
        except FileNotFoundError:
            return []
        return [dict(re.findall(r'\t([\w-]+) = "?([^"\n]*)', block)) for block in blocks if "Acct-Status-Type" in block]

    def record(self, status):
        """The record of this kind, once it is there."""
        return wait_for(lambda: next((r for r in self.records() if r["Acct-Status-Type"] == status), None), 5, 0.1)

    def request(self, kind, attributes):
        """Sends a Disconnect-Request ("disconnect") or CoA-Request ("coa"); returns radclient's output."""
        argv = ["ip", "netns", "exec", self.lab.core, "radclient", "-x", "-t", "3", "-r", "1", "10.77.0.254:3799", kind, SECRET]
        done = subprocess.run(argv, input=attributes, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
        return done.stdout

    def stop(self):
        self.process.stop()


def _wait_for_udp(lab, port, process):
    bound = wait_for(lambda: f":{port} " in lab.exec(lab.core, ["ss", "-Hlun"])[1] or not process.running(), 10, 0.1)
    if not bound or not process.running():
        raise RuntimeError(f"{process.name} did not start: {process.text()[-600:]}")


_UDP = 'secret_file = "{secret}"\n'
_DYNAMIC = _UDP + 'accounting = true\ndynamic_authorization = "10.77.0.254:3799"'
_RADSEC = ('transport = "tls"\nca = "{ca}"\nchain = "{chain}"\nkey = "{key}"\ntls_name = "gw.test"\n'
           'accounting = ["10.77.0.1:2083"]')

# Plugins for EAP; hlr_auc_gw and eap-aka-3gpp are built by deploy/interop/setup.
_PLUGINS = "md4 des fips-prf eap-identity eap-aka eap-aka-3gpp eap-mschapv2 eap-tls"
_SIDES = {
    "aka": (f"auth = eap-aka\n    eap_id = {NAI}\n    id = {NAI}", f'eap-sim {{ id = {NAI}\n secret = 0x{K}{OPC} }}'),
    "mschapv2": (f"auth = eap-mschapv2\n    eap_id = {USER}\n    id = {USER}",
                 f'eap-user {{ id = {USER}\n secret = "{PASSWORD}" }}'),
    "tls": ("auth = eap-tls\n    certs = ue.pem\n    eap_id = ue.test\n    id = ue.test", ""),
}


def ue_class(kind, method, remote=None, name=USER):
    """A class of strongSwan UEs: `kind` with an EAP method instead of a key.

    remote: how the gateway has to prove itself; name: what a UE with a password calls itself.
    """
    local, secret = (side.replace(USER, name) for side in _SIDES[method])

    class Ue(kind):
        secrets = f"secrets {{ {secret} }}\n" if secret else ""
        plugins = f"{PLUGINS} {_PLUGINS}"

        @staticmethod
        def sides(_auth):
            return local, remote or "auth = pubkey\n    cacerts = ca.pem\n    id = gw.test"
    return Ue


def configured(lab, pki, servers, more=None):
    """The gateway's sections for a RADIUS back end and the profile that uses it."""
    path = lab.path("radius.secret")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(SECRET + "\n")
    files = {"secret": path, "ca": pki.file("ca.pem"), "chain": pki.file("ue.pem"), "key": pki.file("ue.key")}
    return _AAA.format(servers=", ".join(f'"{server}"' for server in servers), more=(more or _UDP).format(**files)) + _PROFILE


def session(method, server, ue=Direct, servers=("10.77.0.1:1812",), more=_UDP, act=None,
            transport="udp"):
    """A whole session of a UE that authenticates by EAP: attach, traffic, rekeys, delete.

    server(lab, pki) starts the server; act(bench, gateway, peer, server, verdict) does what is particular.
    """
    def body(bench, verdict):
        pki = bench.pki["rsa"]
        if transport == "udp":
            bench.network.open_direct()
        running = server(bench.lab, pki)
        gateway = bench.gateway("rsa", profiles=False, more=configured(bench.lab, pki, servers, more))
        peer = ue_class(ue, method)(bench.lab, bench.network, PSK, "eap", pki, esp="aes256gcm16")
        addresses = peer.attach(verdict)
        seen = re.findall(r"EAP method (EAP_\w+) succeeded, MSK established", peer.charon.log())
        verdict.step("EAP", len(seen) == 1, " ".join(seen))
        gateway.step_session(verdict, addresses, esn=False, transport=transport)
        ping(verdict, "ping", bench.network.execute)
        iperf_both_ways(verdict, bench.lab, bench.network.execute, seconds=1)
        peer.rekey_child(verdict)
        peer.rekey_ike(verdict)
        ping(verdict, "ping", bench.network.execute)
        if act:
            act(bench, gateway, peer, running, verdict)
        if peer.ike_sa():
            peer.delete(verdict)
        gateway.step_clean(verdict)
        peer.stop()
        gateway.stop()
        running.stop()
    return body


def accounted(bench, gateway, peer, server, verdict):
    """FreeRADIUS chose the address and hears of the session from beginning to end, rekeys included."""
    row = gateway.sessions()[0]
    verdict.step("its address", row["inner"] == ["10.64.7.9"], " ".join(row["inner"]))
    start = server.record("Start")
    verdict.step("Start", bool(start) and start["User-Name"] == USER and start["Framed-IP-Address"] == "10.64.7.9")
    peer.delete(verdict)
    stop = server.record("Stop")
    good = bool(stop) and stop["Acct-Session-Id"] == start["Acct-Session-Id"] and int(stop["Acct-Input-Octets"]) > 1_000_000
    verdict.step("Stop", good and int(stop["Acct-Output-Octets"]) > 1_000_000 and "Class" in stop,
                 " ".join(f"{stop[key]}" for key in ("Acct-Input-Octets", "Acct-Output-Octets", "Acct-Session-Time"))
                 if stop else "")


def disconnected(_bench, gateway, peer, server, verdict):
    """radclient shortens the session, then ends it; the UE gets a DELETE: RFC 5176."""
    session = server.record("Start")["Acct-Session-Id"]
    wrong = server.request("disconnect", f'Acct-Session-Id = "none"\nEvent-Timestamp = {_now()}\n')
    verdict.step("NAK", "Disconnect-NAK" in wrong and "Session-Context-Not-Found" in wrong)
    changed = server.request("coa", f'Acct-Session-Id = "{session}"\nSession-Timeout = 600\nEvent-Timestamp = {_now()}\n')
    verdict.step("CoA-ACK", "CoA-ACK" in changed, "" if "CoA-ACK" in changed else changed[-200:])
    done = server.request("disconnect", f'Acct-Session-Id = "{session}"\nEvent-Timestamp = {_now()}\n')
    verdict.step("Disconnect-ACK", "Disconnect-ACK" in done, "" if "Disconnect-ACK" in done else done[-200:])
    gone = wait_for(lambda: not peer.ike_sa() and not gateway.sessions(), 8, 0.2)
    verdict.step("session ended", bool(gone))
    stop = server.record("Stop")
    verdict.step("Stop", bool(stop) and stop["Acct-Terminate-Cause"] == "Admin-Reset", stop and stop["Acct-Terminate-Cause"])


def _now():
    _, seconds = run(["date", "+%s"])
    return seconds.strip()


def failed_over(_bench, gateway, _peer, _server, verdict):
    """The first server is not there; the second one let the UE in."""
    rows = {row["server"]: row for row in gateway.stats()["aaa"]}
    first, second = rows["10.77.0.9:1812"], rows["10.77.0.1:1812"]
    verdict.step("failover", first["timeouts"] >= 1 and not first["up"] and second["accepts"] == 1,
                 f"{first['retransmissions']} retransmissions")


def udp_aka(lab, _pki):
    return Hostapd(lab)


def mschapv2(lab, pki):
    return FreeRadius(lab, pki, "mschapv2")


def tls(lab, pki):
    return FreeRadius(lab, pki, "tls")


# Name and body of each scenario.
SESSIONS = (
    ("radius-hostapd-aka", session("aka", udp_aka)),
    ("radius-hostapd-aka-tcp", session("aka", udp_aka, ue=Originated, transport="tcp")),
    ("radius-hostapd-failover", session("aka", udp_aka, servers=("10.77.0.9:1812", "10.77.0.1:1812"), act=failed_over,
                                        more=_UDP + "timeout_ms = 500\ndead_after_ms = 1000\nstatus_server = false")),
    ("radius-freeradius-mschapv2", session("mschapv2", mschapv2, act=accounted, more=_DYNAMIC)),
    ("radius-freeradius-disconnect", session("mschapv2", mschapv2, act=disconnected, more=_DYNAMIC)),
    ("radius-freeradius-tls", session("tls", tls)),
    ("radius-freeradius-radsec", session("mschapv2", mschapv2, servers=("10.77.0.1:2083",), act=accounted, more=_RADSEC)),
)
