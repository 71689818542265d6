"""strongSwan (charon with userland ESP) as initiator or responder, and the shim that gives it TCP."""
import json
import os
import re
import shutil
import subprocess
import sys

from .gateway import PPK, PPK_ID
from .lab import Lab, run, wait_for

CHARON = "/usr/lib/ipsec/charon"
PLUGINS = ("random nonce openssl pem pkcs1 pkcs8 x509 pubkey revocation constraints curve25519 aes sha1 sha2 hmac kdf "
           "gcm chapoly mgf1 drbg kernel-libipsec kernel-netlink socket-default vici updown attr")
# Debian's plugins and those that it leaves out, together (deploy/interop/setup eap).
BUILT_PLUGINS = os.path.join(os.environ.get("INTEROP_STATE", "/var/lib/interop"), "plugins")
HERE = os.path.dirname(os.path.abspath(__file__))

# fwmark keeps charon's own packets out of its tunnel whatever the selectors say.
_STRONGSWAN_CONF = """charon {{
  load = {plugins}
  retransmit_tries = 4
  retransmit_timeout = 2.0
  retransmit_base = 1.5
  syslog {{
    daemon {{ default = -1 }}
    auth {{ default = -1 }}
  }}
  filelog {{ log {{
    path = {directory}/charon.log
    default = 1
    enc = 1
    flush_line = yes
  }} }}
  plugins {{
    vici {{ socket = unix://{directory}/vici }}
    kernel-netlink {{ fwmark = !0x42 }}
    socket-default {{ fwmark = 0x42 }}
    kernel-libipsec {{ allow_peer_ts = yes }}
  }}
}}
"""
_THROUGH_SHIM = "local_port = 4500\n  remote_port = 4500"
_INITIATOR = """connections {{ gw {{
  version = 2
  {ports}
  remote_addrs = {gateway}
  vips = 0.0.0.0,::
  mobike = {mobike}
  proposals = {ike}
  dpd_delay = {dpd}s
  rekey_time = {rekey}
  {more}
  send_cert = always
  local {{
    {local}
  }}
  remote {{
    {remote}
  }}
  children {{ net {{
    remote_ts = 10.77.0.0/24,2001:db8:77::/64
    esp_proposals = {esp}
    rekey_time = {rekey}
  }} }}
}} }}
"""
_RESPONDER = """connections {{ ues {{
  version = 2
  pools = inner4,inner6
  proposals = {ike}
  send_cert = always
  local {{
    {local}
  }}
  remote {{
    {remote}
  }}
  children {{ net {{
    local_ts = 10.77.0.0/24,2001:db8:77::/64
    esp_proposals = {esp}
  }} }}
}} }}
pools {{
  inner4 {{ addrs = 10.64.0.0/24 }}
  inner6 {{ addrs = fd64::/112 }}
}}
"""


class Charon:
    """One IKE daemon in a namespace, with its own configuration, /run and log."""

    def __init__(self, lab, namespace, name, connections, psk, credentials=None, plugins=PLUGINS):
        """credentials: (Pki, "gw" or "ue") for certificate authentication."""
        self.dir = lab.directory(name)
        for sub in ("x509", "x509ca", "private"):
            os.makedirs(os.path.join(self.dir, "swanctl", sub))
        with open(os.path.join(self.dir, "strongswan.conf"), "w") as file:
            file.write(_STRONGSWAN_CONF.format(plugins=plugins, directory=self.dir) +
                       "swanctl { load = random nonce openssl pem pkcs1 pkcs8 x509 pubkey revocation constraints }\n")
        with open(os.path.join(self.dir, "swanctl", "swanctl.conf"), "w") as file:
            file.write(connections + f'secrets {{ ike {{ secret = "{psk}" }} ppk {{ id = {PPK_ID}\n secret = {PPK} }} }}\n')
        if credentials:
            certificates, own = credentials
            for sub, source in (("x509", own + ".pem"), ("x509ca", "ca.pem"), ("x509ca", "sub.pem"),
                                ("private", own + ".key")):
                if os.path.exists(certificates.file(source)):
                    shutil.copy(certificates.file(source), os.path.join(self.dir, "swanctl", sub))
        self.env = {"STRONGSWAN_CONF": os.path.join(self.dir, "strongswan.conf"),
                    "SWANCTL_DIR": os.path.join(self.dir, "swanctl")}
        self.process = lab.spawn(name, [CHARON], namespace=namespace, env=self.env, private_run=True,
                                 binds=[(BUILT_PLUGINS, "/usr/lib/ipsec/plugins")] if "eap-aka-3gpp" in plugins else ())
        if not wait_for(lambda: os.path.exists(os.path.join(self.dir, "vici")), 10):
            raise RuntimeError("charon did not start: " + self.process.text()[-400:])
        self.ctl("--load-all", "--noprompt", check=True)

    def ctl(self, command, *arguments, check=False, timeout=40):
        return run(["swanctl", command, "--uri", f"unix://{self.dir}/vici", *arguments], check=check,
                   timeout=timeout, env={**os.environ, **self.env})

    def log(self):
        with open(os.path.join(self.dir, "charon.log"), errors="replace") as file:
            return file.read()

    def stop(self):
        self.process.stop()


class Shim:
    """A running harness.shim and its command line."""

    def __init__(self, lab, namespace, role, udp, tcp):
        argv = [sys.executable, os.path.join(HERE, "shim.py"), role, "--udp", udp, "--tcp", tcp]
        self.process = lab.spawn("shim", argv, namespace=namespace, stdin=subprocess.PIPE)
        self._answers = 0
        self._next_answer("ready")

    def _next_answer(self, what):
        """Waits for one more line of output."""
        lines = wait_for(lambda: len(got := self.process.text().splitlines()) > self._answers and got, 10)
        if not lines:
            raise RuntimeError(f"shim gave no answer to {what}: {self.process.text()[-300:]}")
        self._answers += 1
        return lines[self._answers - 1]

    def do(self, command):
        self.process.child.stdin.write((command + "\n").encode())
        self.process.child.stdin.flush()
        return self._next_answer(command)

    def stats(self):
        return json.loads(self.do("stats"))

    def stop(self):
        self.process.stop()


class Network:
    """The UE's side of a lab: namespace `ue`, behind it `mid` with the shim, then the gateway.

    `mid` may be a namespace that reaches the gateway already.
    """

    SHIM, UE = "10.97.0.1", "10.97.0.2"
    SHIM6, UE6 = "2001:db8:97::1", "2001:db8:97::2"
    # Where the UE may move to.
    UE_MOVED = "10.97.0.3"

    def __init__(self, lab, mid=None):
        self.lab, self.mid, self.ue = lab, mid or lab.namespace("mid"), lab.namespace("ue")
        if not mid:
            lab.veth(lab.gw, "out0", (Lab.GATEWAY4 + "/24", Lab.GATEWAY6 + "/64"),
                     self.mid, "eth0", (Lab.UE4 + "/24", Lab.UE6 + "/64"))
        lab.veth(self.mid, "eth1", (self.SHIM + "/24", self.SHIM6 + "/64"),
                 self.ue, "eth0", (self.UE + "/24", self.UE6 + "/64"))

    def open_direct(self):
        """Lets the UE reach the gateway without the shim, and the gateway the UE."""
        self.lab.exec(self.mid, ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
        self.lab.ip(self.ue, f"route replace {Lab.GATEWAY4} via {self.SHIM}")
        self.lab.ip(self.ue, f"route replace {Lab.GATEWAY6} via {self.SHIM6}")
        for address in (self.UE, self.UE_MOVED):
            self.lab.ip(self.lab.gw, f"route replace {address} via {Lab.UE4}")
        self.lab.ip(self.lab.gw, f"route replace {self.UE6} via {Lab.UE6}")

    def move_ue(self, old, new):
        """The UE gets another address; the old one is gone at once."""
        self.lab.exec(self.ue, ["sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1"])
        self.lab.ip(self.ue, f"addr add {new}/24 dev eth0")
        self.lab.ip(self.ue, f"addr del {old}/24 dev eth0")

    def nat(self, ports):
        """Puts a NAT in front of the UE that gives it source ports of this range."""
        self.open_direct()
        for line in ("add table ip nat", "add chain ip nat out { type nat hook postrouting priority 100; }",
                     f"add rule ip nat out oifname eth0 meta l4proto udp masquerade to :{ports}"):
            self.lab.exec(self.mid, ["nft", line])

    def move_nat(self, old, new):
        """The NAT gets another outside address and forgets its mappings, as it does then."""
        self.lab.ip(self.mid, f"addr del {old}/24 dev eth0")
        self.lab.ip(self.mid, f"addr add {new}/24 dev eth0")

    def no_nat(self):
        self.lab.exec(self.mid, ["nft", "flush ruleset"])

    def execute(self, argv, timeout):
        """The form harness.traffic wants."""
        return self.lab.exec(self.ue, argv, timeout, check=False)


def _sides(auth, own_id, peer_id, own_cert):
    if auth == "psk":
        return f"auth = psk\n    id = {own_id}", f"auth = psk\n    id = {peer_id}"
    return (f"auth = pubkey\n    certs = {own_cert}.pem\n    id = {own_id}",
            f"auth = pubkey\n    cacerts = ca.pem\n    id = {peer_id}")


class Initiator:
    """strongSwan as the UE, through its shim."""

    def __init__(self, lab, network, psk, auth="psk", pki=None, ike="aes256gcm16-prfsha256-ecp256",
                 esp="aes256gcm16-ecp256,aes256gcm16", gateway=Lab.GATEWAY4, split=0, coalesce=0, dpd=2, mobike="yes",
                 rekey="1h", more=""):
        self.shim = self.way(lab, network, gateway)
        for fault, value in (("split", split), ("coalesce", coalesce)):
            if value:
                self.shim.do(f"{fault} {value}")
        local, remote = self.sides(auth)
        self.charon = Charon(lab, network.ue, "initiator", _INITIATOR.format(
            gateway=self.towards(gateway), ports=self.ports, ike=ike, esp=esp, local=local, remote=remote, dpd=dpd,
            mobike=mobike, rekey=rekey, more=more) + self.secrets,
            psk, pki and (pki, "ue"), self.plugins)

    ports, secrets, plugins = _THROUGH_SHIM, "", PLUGINS

    @staticmethod
    def sides(auth):
        return _sides(auth, "ue@ue.test" if auth == "psk" else "ue.test", "gw.test", "ue")

    @staticmethod
    def way(lab, network, gateway):
        return Shim(lab, network.mid, "originate", f"{Network.SHIM}:4500", f"{gateway}:{Lab.PORT}")

    @staticmethod
    def towards(_gateway):
        return Network.SHIM

    def stop(self):
        self.charon.stop()
        if self.shim:
            self.shim.stop()

    def attach(self, verdict):
        """IKE_SA_INIT and IKE_AUTH; returns the inner addresses."""
        _, output = self.charon.ctl("--initiate", "--child", "net", "--timeout", "20")
        suite = re.search(r"selected proposal: (ESP:\S+)", output)
        verdict.step("attach", "CHILD_SA net{" in output and "established with SPIs" in output,
                     suite[1] if suite else self.reason(output))
        addresses = re.findall(r"installing new virtual IP (\S+)", output)
        verdict.step("address", bool(addresses), " ".join(addresses) or "none given")
        return addresses

    def ike_sa(self):
        """Number and SPIs of the established IKE SA; changes when it is rekeyed or made anew."""
        _, output = self.charon.ctl("--list-sas")
        found = re.findall(r"(?m)^gw: (#\d+), ESTABLISHED, IKEv2, (\w+_i\*? \w+_r\*?)", output)
        return found[0] if len(found) == 1 else None

    def dpd(self, verdict):
        """charon's own liveness check is answered; when it is not, its retransmits show in the log."""
        before = self.charon.log().count("sending DPD request")
        seen = wait_for(lambda: self.charon.log().count("sending DPD request") > before, 8, 0.1)
        answered = wait_for(lambda: re.search(r"parsed INFORMATIONAL response \d+ \[",
                                              self.charon.log().rpartition("sending DPD request")[2]), 3)
        verdict.step("dpd", bool(seen and answered), "" if seen and answered else "no answer")

    def rekey_child(self, verdict):
        before = len(re.findall(r"CHILD_SA net\{\d+\} established", self.charon.log()))
        self.charon.ctl("--rekey", "--child", "net")
        done = wait_for(lambda: len(re.findall(r"CHILD_SA net\{\d+\} established", self.charon.log())) > before, 8)
        verdict.step("rekey child", bool(done), "" if done else self.reason(self.charon.log()))

    def rekey_ike(self, verdict):
        before = self.ike_sa()
        self.charon.ctl("--rekey", "--ike", "gw")
        done = wait_for(lambda: (now := self.ike_sa()) and now != before, 8, 0.2)
        verdict.step("rekey ike", bool(done), "" if done else self.reason(self.charon.log()))

    def delete(self, verdict):
        _, output = self.charon.ctl("--terminate", "--ike", "gw", "--timeout", "8")
        verdict.step("delete", "terminate completed successfully" in output and "IKE_SA deleted" in output,
                     "" if "IKE_SA deleted" in output else self.reason(output))

    @staticmethod
    def reason(output):
        """The last line of charon's log that says what went wrong."""
        telling = [line for line in output.splitlines()
                   if re.search(r"fail|error|N\(|denied|giving up|no .* found|retransmit|unable", line)]
        return (telling or output.strip().splitlines() or ["no answer"])[-1][:200]


class Direct(Initiator):
    """strongSwan as the UE over UDP, as it comes: port 500, then 4500, ESP in UDP."""

    ports = ""

    @staticmethod
    def way(_lab, _network, _gateway):
        return None

    @staticmethod
    def towards(gateway):
        return gateway


def udp_responder(lab, psk, auth, pki):
    """strongSwan as a server of UEs, in the gateway's namespace."""
    # charon starts without its ports, and says so in its log only.
    if not wait_for(lambda: ":4500 " not in lab.exec(lab.gw, ["ss", "-Hlun"])[1], 10, 0.1):
        raise RuntimeError("another process of the gateway's namespace holds UDP 4500")
    local, remote = _sides(auth, "gw.test", "%any", "gw")
    return Charon(lab, lab.gw, "responder", _RESPONDER.format(
        local=local, remote=remote,
        ike="aes256gcm16-prfsha256-ecp256,aes128gcm16-prfsha256-curve25519,aes256-sha256-modp2048,"
            "aes256-sha512-ecp384",
        esp="aes256gcm16-ecp256,aes256gcm16,aes128gcm16-curve25519,aes128gcm16,"
            "aes256-sha256-modp2048,aes256-sha256,aes128-sha256-ecp384,aes128-sha256"),
        psk, pki and (pki, "gw"))


class Responder:
    """strongSwan behind an accepting shim: a reference to check the harness itself."""

    def __init__(self, lab, psk, auth, pki):
        self.charon = udp_responder(lab, psk, auth, pki)
        self.shim = Shim(lab, lab.gw, "accept", "127.0.0.1:4500", f"{Lab.GATEWAY4}:{Lab.PORT}")

    def evidence(self):
        """Its log is all there is."""

    def stop(self):
        self.charon.stop()
        self.shim.stop()
