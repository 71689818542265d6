"""swugate in the lab's gateway namespace, and the configuration it runs with."""
import json
import os
import shutil

from .lab import wait_for

PSK = "interop-psk-0123456789"
PPK_ID, PPK = "ppk1", "0x" + "5a" * 32
POOLS = ("10.64.0.0/16", "fd64::/112")
HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.environ.get("CARGO_TARGET_DIR") or os.path.join(HERE, "../../../target")
BINARY = os.path.realpath(os.environ.get("SWUGATE") or os.path.join(TARGET, "release/swugate"))
LOADGEN = os.path.join(os.path.dirname(BINARY), "loadgen")

# Drops that a session without faults never causes.
NEVER = {"unparseable", "unknown_spi", "foreign_spi", "esp_too_short", "replayed", "left_of_window", "bad_icv",
         "bad_padding", "bad_next_header", "bad_inner_packet", "uplink_selector", "control_queue_full", "ike_flood"}

_CONFIG = """[gateway]
identity = "gw.test"
run_dir = "{run_dir}"

[listen]
tcp = [{tcp}]
{listen}

[inner]
device = "{device}"

[[pool]]
name = "default"
prefixes = [{pools}]
{certificate}
[limits]
{limits}

{more}
[debug]
log = "info"
keylog = true
"""
_TLS_LISTEN = 'tls = ["0.0.0.0:443", "[::]:443"]\n'
TLS = """
[tls]
chain = "{chain}"
key = "{key}"
"""
_CERTIFICATE = """
[certificate]
chain = "gw.pem"
key = "gw.key"
ca = "ca.pem"
"""
_PROFILE = """
[[profile]]
name = "{auth}"
match = {{ idi = "*", idr = "*" }}
auth = "{auth}"{secrets}
pool = "default"
local_ts = ["10.77.0.0/24", "2001:db8:77::/64"]
ike = ["aes256gcm16-prfsha256-ecp256", "aes128gcm16-prfsha256-x25519", "aes256-sha512-ecp384", "aes256-sha256-modp2048"]
esp = ["aes256gcm16", "aes128gcm16", "aes256-sha256", "aes128-sha256"]
transports = ["tcp", "udp", "tls"]
dpd_s = {dpd_s}
{profile}
"""


def write_config(directory, pki=None, dpd_s=60, ports=(4500,), hosts=("0.0.0.0", "[::]"), listen="",
                 device="swu0", limits="", profile="", more="", pools=POOLS, tls=None, profiles=True):
    """Writes swugate.toml and the files it names into a directory; returns the configuration's path.

    Always a PSK profile; with certificates (a harness.pki.Pki or an object with its `file`) one
    that wants them as well.  hosts, ports: where it listens on TCP; listen, limits, profile: lines of
    those sections; more: further sections; pools: what addresses it gives; profiles: without, `more` has its own.
    """
    os.makedirs(directory, exist_ok=True)
    own = _PROFILE.format(auth="psk", dpd_s=dpd_s, profile=profile, secrets='\nsecrets_file = "secrets.toml"')
    if pki:
        own += _PROFILE.format(auth="certificate", dpd_s=dpd_s, profile=profile, secrets="")
        for name in ("gw.pem", "gw.key", "ca.pem"):
            shutil.copy(pki.file(name), os.path.join(directory, name))
    config = os.path.join(directory, "swugate.toml")
    tcp = ", ".join(f'"{host}:{port}"' for port in ports for host in hosts)
    if tls:
        listen += _TLS_LISTEN
        more += TLS.format(chain=tls.file("gw.pem"), key=tls.file("gw.key"))
    with open(config, "w") as file:
        file.write(_CONFIG.format(run_dir=os.path.join(directory, "run"), pools=", ".join(f'"{p}"' for p in pools),
                                  certificate=_CERTIFICATE if pki else "", tcp=tcp, listen=listen, device=device, limits=limits,
                                  more=more) + (own if profiles else ""))
    secrets = os.path.join(directory, "secrets.toml")
    with open(os.open(secrets, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(f'psk = "{PSK}"\n[[ppk]]\nid = "{PPK_ID}"\nkey = "{PPK}"\n')
    return config


class GatewayFailed(Exception):
    """swugate did not start, answer or end as it must."""


class Run:
    """One process of `swugate run` in the gateway's namespace."""

    def __init__(self, lab, name, config, port):
        """port: one that it listens on when it is ready."""
        if not os.access(BINARY, os.X_OK):
            raise GatewayFailed(f"no {BINARY}: cargo build --release -p gateway")
        self.lab, self.name, self.config = lab, name, config
        self.process = lab.spawn(name, [BINARY, "run", "-c", config], namespace=lab.gw)
        control = os.path.join(os.path.dirname(config), "run", "control.sock")
        ready = wait_for(lambda: not self.process.running() or os.path.exists(control) and lab.listening(port, 0), 10)
        if not ready or not self.process.running():
            raise GatewayFailed(f"{name} is not ready: " + self.process.text()[-600:])

    def command(self, *arguments):
        """One administration command."""
        return [BINARY, *arguments, "-c", self.config]

    def admin(self, *arguments):
        """Its output."""
        return self.lab.exec(self.lab.gw, self.command(*arguments))[1]

    def sessions(self):
        return json.loads(self.admin("sessions", "--json"))

    def stats(self):
        return json.loads(self.admin("stats", "--json"))

    def counted(self, what):
        """How many IKE exchanges did this."""
        return self.stats()["exchanges"][what]

    def evidence(self):
        """Keeps what the process knows beside its log, for a failed scenario."""
        for name in ("stats", "sessions"):
            with open(os.path.join(os.path.dirname(self.config), name + ".json"), "w") as file:
                file.write(self.admin(name, "--json") if self.process.running() else "not running\n")

    def stop(self):
        status = self.process.stop(grace=8)
        if status != 0:
            raise GatewayFailed(f"{self.name} ended with status {status}: {self.process.text()[-600:]}")


class Swugate(Run):
    """A gateway; fresh for every scenario."""

    def __init__(self, lab, pki=None, dpd_s=60, **options):
        """options: of write_config."""
        config = write_config(lab.directory("gateway"), pki, dpd_s, **options)
        super().__init__(lab, "swugate", config, options.get("ports", (lab.PORT,))[0])

    def step_session(self, verdict, addresses, esn, transport="tcp"):
        """The administrator's view of the one session that is there."""
        sessions = self.sessions()
        verdict.step("one session", len(sessions) == 1, "" if len(sessions) == 1 else f"{len(sessions)} sessions")
        session = sessions[0]
        seen = {"state": session["state"], "transport": session["transport"], "inner": sorted(session["inner"]),
                "esn": [child["esn"] for child in session["children"]]}
        # A UE may ask for an address of either family and use one only.
        seen["inner"] = [address for address in seen["inner"] if address in addresses]
        wanted = {"state": "established", "transport": transport, "inner": sorted(addresses), "esn": [esn]}
        verdict.step("as swugate sees it", seen == wanted, "" if seen == wanted else f"{seen}, wanted {wanted}")

    def step_clean(self, verdict, expected=()):
        """After a session without faults: nothing left of it, and no packet failed its checks but for these."""
        gone = wait_for(lambda: not self.sessions(), 5, 0.2)
        bad = {reason: count for reason, count in self.stats()["drops"].items() if count and reason in NEVER - set(expected)}
        verdict.step("clean", gone is not None and not self.sessions() and not bad, f"drops {bad}" if bad else "")
