"""libreswan 4.10 with kernel ESP in TCP, in a User-Mode Linux guest."""
import re
import shutil
from dataclasses import dataclass

from .guest import Guest
from .lab import Lab, wait_for


@dataclass(frozen=True)
class Suite:
    """What one connection offers, and what the guest's kernel must then show of its SAs."""
    ike: str
    esp: str
    esn: str
    kernel: str            # algorithm in `ip xfrm state`
    auth: str = "psk"      # psk, rsa, ecdsa
    tcp: str = "yes"       # yes, no, fallback
    port: int = Lab.PORT
    outer: int = 4
    inner: int = 4

    @property
    def encapsulation(self):
        return "espinudp" if self.tcp == "no" else "espintcp"

    @property
    def core(self):
        """What is behind the gateway."""
        return ("10.77.0.0/24", "via " + Lab.GATEWAY4) if self.inner == 4 else \
               ("2001:db8:77::/64", "via " + Lab.GATEWAY6)

    @property
    def by_hand(self):
        """libreswan's updown script takes the family inside for the one outside."""
        return self.outer != self.inner


_GCM = {"ike": "aes_gcm256-sha2_256;dh19", "esp": "aes_gcm256", "esn": "either", "kernel": "rfc4106(gcm(aes))"}
SUITES = {
    "gcm-esn": Suite("aes_gcm256-sha2_256;dh19", "aes_gcm256", "yes", "rfc4106(gcm(aes))"),
    "cbc": Suite("aes256-sha2_256;dh14", "aes256-sha2_256", "either", "cbc(aes)"),
    "no-esn": Suite("aes_gcm128-sha2_256;dh31", "aes_gcm128", "no", "rfc4106(gcm(aes))"),
    "rsa": Suite("aes_gcm256-sha2_256;dh19", "aes_gcm256", "either", "rfc4106(gcm(aes))", "rsa"),
    "ecdsa": Suite("aes256-sha2_512;dh20", "aes128-sha2_256", "no", "cbc(aes)", "ecdsa"),
    "port-443": Suite(**_GCM, port=443),
    "fallback": Suite(**_GCM, tcp="fallback", port=443),
    "udp": Suite(**_GCM, tcp="no"),
    "invalid-ke": Suite(**{**_GCM, "ike": "aes_gcm256-sha2_256;dh21+dh19"}),
    "ipv6-in-ipv6": Suite(**_GCM, outer=6, inner=6),
    "ipv4-in-ipv6": Suite(**_GCM, outer=6),
    "ipv6-in-ipv4": Suite(**_GCM, inner=6),
    "ipv4-in-ipv6-udp": Suite(**_GCM, tcp="no", outer=6),
}
# Those that run a whole session, with every rekey.
WHOLE = ("gcm-esn", "cbc", "no-esn", "rsa", "ecdsa")

_SETUP = """config setup
  logtime=yes
  logfile=/job/pluto.log
  plutodebug=base
  listen-tcp=yes
  listen-udp=yes
  protostack=xfrm
"""
_CONN = """conn {name}
  ikev2=insist
  left={ue}
  leftsubnet={any}
  leftmodecfgclient=yes
  leftupdown="{updown}"
  leftid={left_id}
  right={gateway}
  rightid=@gw.test
  rightsubnet={core}
  narrowing=yes
  {auth}
  ike={suite.ike}
  esp={suite.esp}
  esn={suite.esn}
  accept-redirect=yes
  enable-tcp={suite.tcp}
  tcp-remoteport={suite.port}
  dpddelay=2
  retransmit-timeout=10s
  dpdaction=clear
  auto=ignore
"""
_AUTH = {"psk": "authby=secret",
         "rsa": "authby=rsasig\n  leftcert=ue-rsa\n  leftsendcert=always\n  rightca=%same",
         "ecdsa": "authby=ecdsa\n  leftcert=ue-ecdsa\n  leftsendcert=always\n  rightca=%same"}


class Pluto:
    """pluto in a guest."""

    def __init__(self, lab):
        self.lab, self.guest = lab, Guest(lab)

    def start(self, connections, secrets, imports=()):
        """connections: {name: its section}; imports: commands that fill the NSS database /run/nss."""
        self.guest.put("ipsec.conf", _SETUP + "".join(connections.values()))
        self.guest.put("ipsec.secrets", secrets)
        adds = [f"ipsec auto --add {name}" for name in connections]
        self.guest.sh("\n".join([
            "set -e", "cp /job/ipsec.conf /job/ipsec.secrets /etc/", "chmod 600 /etc/ipsec.secrets",
            "ipsec initnss --nssdir /run/nss", *imports,
            "/usr/libexec/ipsec/pluto --config /etc/ipsec.conf --nssdir /run/nss",
            "until ipsec whack --status > /dev/null 2>&1; do sleep 0.05; done",
            "ipsec whack --listen", *adds]), timeout=60, check=True)

    def log(self):
        return self.guest.get("pluto.log")

    def sas(self):
        """The kernel's ESP SAs: {SPI: their text in `ip xfrm state`}."""
        _, text = self.guest.sh("ip xfrm state")
        return {spi[1]: block for block in re.split(r"(?m)^(?=src )", text)
                if (spi := re.search(r"proto esp spi (0x\w+)", block))}

    def rekey_child(self, verdict, name):
        before = self.sas()
        _, output = self.guest.sh(f"ipsec whack --rekey-ipsec --name {name}", 25)
        moved = wait_for(lambda: len(now := self.sas()) == 2 and not now.keys() & before.keys(), 5, 0.3)
        verdict.step("rekey child", "rekeyed Child SA" in output and bool(moved),
                     "" if moved else self.reason(output))

    def rekey_ike(self, verdict, name):
        _, output = self.guest.sh(f"ipsec whack --rekey-ike --name {name}", 25)
        verdict.step("rekey ike", "rekeyed IKE SA" in output, "" if "rekeyed IKE SA" in output else self.reason(output))

    def step_no_complaint(self, verdict):
        """pluto's own assertions about what it was sent."""
        complaints = re.findall(r"(?m)^.*(?:ASSERTION|EXPECTATION) FAILED.*$", self.log())
        verdict.step("no complaint", not complaints, "; ".join(complaints)[:200])

    @staticmethod
    def reason(output):
        """The line of pluto's answer that says why."""
        lines = output.strip().splitlines() or ["no answer"]
        telling = [line for line in lines if re.search(
            r"AUTHENTICATION_FAILED|NO_PROPOSAL|TS_UNACCEPT|INVALID|fail|timeout|refused|cannot|unable", line)]
        return (telling or lines[-1:])[0][:200]


class Libreswan(Pluto):
    """An initiator with one connection for each of SUITES."""

    def __init__(self, lab, psk, pki):
        super().__init__(lab)
        connections = {
            name: _CONN.format(name=name, suite=suite, ue=Lab.UE4 if suite.outer == 4 else Lab.UE6,
                               gateway=Lab.GATEWAY4 if suite.outer == 4 else Lab.GATEWAY6,
                               any="0.0.0.0/0" if suite.inner == 4 else "::/0",
                               core=suite.core[0], updown="%disabled" if suite.by_hand else "ipsec _updown",
                               left_id="@ue.test" if suite.auth == "psk" else "%fromcert", auth=_AUTH[suite.auth])
            for name, suite in SUITES.items()}
        imports = []
        for kind, certificates in pki.items():
            shutil.copy(certificates.file("ca.pem"), self.guest.file(f"ca-{kind}.pem"))
            shutil.copy(certificates.file("ue.p12"), self.guest.file(f"ue-{kind}.p12"))
            imports.append(f"certutil -A -n ca-{kind} -t CT,, -i /job/ca-{kind}.pem -d sql:/run/nss")
            imports.append(f"pk12util -i /job/ue-{kind}.p12 -d sql:/run/nss -W interop")
        self.start(connections, f'@ue.test @gw.test : PSK "{psk}"\n', imports)

    def attach(self, verdict, name, esn):
        """Brings the connection up, checks the guest's kernel; returns its inner address."""
        suite = SUITES[name]
        before = len(self.log())
        status, output = self.guest.sh(f"timeout 20 ipsec auto --up {name}", 30)
        if suite.tcp == "fallback":
            # The command ends with the attempt over UDP; the one over TCP follows.
            status = 0 if wait_for(lambda: "established Child SA" in self.log()[before:], 15, 0.3) else 1
            output = self.log()[before:]
        done = status == 0 and "established Child SA" in output
        verdict.step("attach", done, "" if done else self.reason(output))
        address = re.search(rf"INTERNAL_IP{suite.inner}_ADDRESS ([\da-f][\da-f.:]*)", output)
        sas = self.sas()
        verdict.step("kernel SAs", len(sas) == 2 and all(
            suite.encapsulation in text and suite.kernel in text and bool(re.search(r"flag .*\besn\b", text)) == esn
            for text in sas.values()), f"{suite.kernel}{' ESN' if esn else ''}")
        verdict.step("address", bool(address), address[1] if address else "none given")
        if suite.by_hand:
            subnet, via = suite.core
            self.guest.sh(f"ip addr replace {address[1]} dev lo; ip route replace {subnet} {via} src {address[1]}", check=True)
        return address[1]

    def dpd(self, verdict):
        """A liveness check that pluto starts must have been answered (an unanswered one would block the rekeys)."""
        before = self.log().count("an INFORMATIONAL liveness check")
        seen = wait_for(lambda: self.log().count("an INFORMATIONAL liveness check") > before, 10, 0.1)
        verdict.step("dpd", bool(seen), "" if seen else "pluto sent no liveness check")

    def delete(self, verdict, name):
        _, output = self.guest.sh(f"timeout 10 ipsec auto --down {name}", 15)
        gone = wait_for(lambda: not self.sas(), 3, 0.2)
        verdict.step("delete", bool(gone), "" if gone else self.reason(output))
