"""A 3GPP AAA server on SWm, as far as a gateway sees it; its EAP is that of a RADIUS server behind it.

    swm_server.py --listen ADDR:PORT --identity HOST --realm REALM --radius ADDR:PORT:SECRET

Reads commands from standard input, one per line, and answers each with a line of JSON: `stats`, `abort` (an ASR for every
session), `reauthorize` (a RAR for every session), `refuse CODE` (3GPP's Experimental-Result for whoever comes next; 0: no
more), `timeout SECONDS` (Session-Timeout of answers), `hold`/`release` (DERs go unanswered).
"""
import argparse
import hashlib
import hmac
import itertools
import json
import os
import socket
import socketserver
import struct
import sys
import threading

TGPP, SWM = 10415, 16777264
CER, RAR, AAR, DER, ASR, STR, DWR, DPR = 257, 258, 265, 268, 274, 275, 280, 282
SUCCESS, MULTI_ROUND, UNKNOWN_SESSION = 2001, 1001, 5002


def avp(code, data, vendor=0, must=True):
    """One AVP; data: octets, text or an Unsigned32."""
    if isinstance(data, int):
        data = struct.pack("!I", data)
    elif isinstance(data, str):
        data = data.encode()
    header = struct.pack("!IB", code, (0x80 if vendor else 0) | (0x40 if must else 0))
    length = 8 + (4 if vendor else 0) + len(data)
    return (header + length.to_bytes(3, "big") + (struct.pack("!I", vendor) if vendor else b"") + data
            + b"\0" * (-length % 4))


def avps(octets):
    """(code, vendor, data) of each AVP."""
    while octets:
        code, flags = struct.unpack("!IB", octets[:5])
        length = int.from_bytes(octets[5:8], "big")
        start = 12 if flags & 0x80 else 8
        yield code, struct.unpack("!I", octets[8:12])[0] if flags & 0x80 else 0, octets[start:length]
        octets = octets[length + -length % 4:]


class Message:
    """A received message."""

    def __init__(self, octets):
        self.flags = octets[4]
        self.command = int.from_bytes(octets[5:8], "big")
        self.application, self.hop, self.end = struct.unpack("!III", octets[8:20])
        self.avps = list(avps(octets[20:]))

    def get(self, code, vendor=0):
        return next((data for c, v, data in self.avps if (c, v) == (code, vendor)), None)

    def text(self, code, vendor=0):
        data = self.get(code, vendor)
        return data and data.decode(errors="replace")


def message(flags, command, application, hop, end, body):
    return (b"\1" + (20 + len(body)).to_bytes(3, "big") + bytes([flags]) + command.to_bytes(3, "big")
            + struct.pack("!III", application, hop, end) + body)


class Radius:
    """A RADIUS client (RFC 2865, 3579) for one EAP conversation at a time."""

    def __init__(self, address, secret):
        self.address, self.secret, self.number = address, secret.encode(), itertools.count()

    def ask(self, user, packet, state):
        """One round: (code, EAP packet, State, MSK)."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(3)
            number, authenticator = next(self.number) & 0xff, os.urandom(16)

            def attribute(kind, data):
                return bytes([kind, 2 + len(data)]) + data
            body = attribute(1, user.encode()[:253]) + attribute(4, socket.inet_aton("10.77.0.254"))
            body += b"".join(attribute(79, packet[i:i + 253]) for i in range(0, len(packet), 253))
            body += attribute(24, state) if state else b""
            plain = bytes([1, number]) + struct.pack("!H", 20 + len(body) + 18) + authenticator + body
            sign = hmac.new(self.secret, plain + attribute(80, bytes(16)), hashlib.md5).digest()
            sock.sendto(plain + attribute(80, sign), self.address)
            answer = sock.recv(4096)
        found, rest = [], answer[20:]
        while rest:
            found.append((rest[0], rest[2:rest[1]]))
            rest = rest[rest[1]:]
        eap = b"".join(data for kind, data in found if kind == 79)
        state = next((data for kind, data in found if kind == 24), None)
        return answer[0], eap, state, self._msk(found, authenticator)

    def _msk(self, found, authenticator):
        """MS-MPPE-Recv-Key and -Send-Key (RFC 2548 §2.4.2, §2.4.3), which are the halves of the MSK."""
        halves = {}
        for kind, data in found:
            if kind == 26 and data[:4] == struct.pack("!I", 311) and data[4] in (16, 17):
                halves[data[4]] = self._open(data[6:], authenticator)
        return halves.get(17, b"") + halves.get(16, b"")

    def _open(self, data, authenticator):
        salt, cipher, before, plain = data[:2], data[2:], authenticator, b""
        key = self.secret + before + salt
        for i in range(0, len(cipher), 16):
            block = cipher[i:i + 16]
            plain += bytes(a ^ b for a, b in zip(block, hashlib.md5(key).digest()))
            key = self.secret + block
        return plain[1:1 + plain[0]]


class Server:
    """What all connections share."""

    def __init__(self, options):
        self.options = options
        host, port, secret = options.radius.split(":")
        self.radius = Radius((host, int(port)), secret)
        self.lock = threading.RLock()
        self.seen = {"der": 0, "retransmitted": 0, "str": 0, "aar": 0, "dwr": 0, "asa": {}, "raa": {}, "last": {}, "causes": []}
        self.sessions, self.states, self.links = {}, {}, []
        self.refusal, self.timeout, self.held = 0, 0, False
        self.ids = itertools.count(1)

    def origin(self):
        return avp(264, self.options.identity) + avp(296, self.options.realm)

    def answer(self, request, body, error=False):
        """Session-Id first, Proxy-Info as it came."""
        session = request.get(263)
        proxies = b"".join(avp(284, data) for code, _, data in request.avps if code == 284)
        whole = (avp(263, session) if session else b"") + body + self.origin() + proxies
        flags = (request.flags & 0x40) | (0x20 if error else 0)
        return message(flags, request.command, request.application, request.hop, request.end, whole)

    def serve(self, link, request):
        """The answer to a request, or None."""
        with self.lock:
            if not request.flags & 0x80:
                return self.answered(request)
            if request.command == CER:
                application = avp(260, avp(266, TGPP) + avp(258, SWM))
                capabilities = avp(257, b"\0\1" + socket.inet_aton(self.options.listen.split(":")[0]))
                return self.answer(request, avp(268, SUCCESS) + capabilities + avp(266, TGPP) + avp(269, "swm", must=False)
                                   + avp(265, TGPP) + application)
            if request.command == DWR:
                self.seen["dwr"] += 1
                return self.answer(request, avp(268, SUCCESS))
            if request.command == DPR:
                return self.answer(request, avp(268, SUCCESS))
            if request.command == DER:
                return self.eap(link, request)
            if request.command == AAR:
                self.seen["aar"] += 1
                timeout = avp(27, self.timeout) if self.timeout else b""
                return self.answer(request, avp(268, SUCCESS) + avp(258, SWM) + avp(274, 2) + timeout)
            if request.command == STR:
                known = self.sessions.pop(request.text(263), None)
                self.seen["str"] += 1
                self.seen["causes"].append(int.from_bytes(request.get(295), "big"))
                return self.answer(request, avp(268, SUCCESS if known else UNKNOWN_SESSION))
            return self.answer(request, avp(268, 3001), error=True)

    def answered(self, message):
        result = message.get(268)
        kind = {ASR: "asa", RAR: "raa"}.get(message.command)
        if kind and result:
            code = str(int.from_bytes(result, "big"))
            self.seen[kind][code] = self.seen[kind].get(code, 0) + 1

    def eap(self, link, request):
        self.seen["der"] += 1
        self.seen["retransmitted"] += bool(request.flags & 0x10)
        self.seen["last"] = {
            "user": request.text(1), "apn": request.text(493), "rat": request.get(1032, TGPP) is not None,
            "route": [data.decode() for code, _, data in request.avps if code == 282],
            "outside": socket.inet_ntoa(request.get(2805, TGPP)[2:6]) if request.get(2805, TGPP) else None}
        if self.held:
            return None
        session = request.text(263)
        common = avp(258, SWM) + avp(274, 3)
        if self.refusal:
            code = avp(297, avp(266, TGPP) + avp(298, self.refusal))
            return self.answer(request, code + common)
        code, packet, state, msk = self.radius.ask(request.text(1), request.get(462), self.states.pop(session, None))
        if code == 11:
            self.states[session] = state
            return self.answer(request, avp(268, MULTI_ROUND) + common + avp(462, packet))
        if code != 2:
            return self.answer(request, avp(268, 4001) + common + (avp(462, packet) if packet else b""))
        self.sessions[session] = (link, request.text(264), request.text(296), request.text(1))
        timeout = avp(27, self.timeout) if self.timeout else b""
        return self.answer(request, avp(268, SUCCESS) + common + avp(462, packet) + avp(464, msk)
                           + avp(506, request.text(1)) + timeout)

    def ask_all(self, command, more=b""):
        """A request about every session, on the connection that its DER came on."""
        with self.lock:
            sessions = list(self.sessions.items())
        for session, (link, host, realm, user) in sessions:
            number = next(self.ids)
            link.send(message(0xc0, command, SWM, number, number, avp(263, session) + self.origin() + avp(283, realm)
                              + avp(293, host) + avp(258, SWM) + avp(1, user) + more))
        return len(sessions)

    def command(self, line):
        word, _, rest = line.partition(" ")
        if word == "stats":
            with self.lock:
                return {**self.seen, "sessions": len(self.sessions)}
        if word == "abort":
            return self.ask_all(ASR, avp(277, 0))
        if word == "reauthorize":
            return self.ask_all(RAR, avp(285, 0))
        if word == "refuse":
            self.refusal = int(rest)
        elif word == "timeout":
            self.timeout = int(rest)
        elif word in ("hold", "release"):
            self.held = word == "hold"
        else:
            return {"unknown": line}
        return "done"


class Link(socketserver.BaseRequestHandler):
    """One connection."""

    def setup(self):
        self.sending = threading.Lock()

    def send(self, octets):
        with self.sending:
            self.request.sendall(octets)

    def handle(self):
        stream = self.request.makefile("rb")
        while len(head := stream.read(4)) == 4:
            octets = head + stream.read(int.from_bytes(head[1:4], "big") - 4)
            request = Message(octets)
            answer = self.server.swm.serve(self, request)
            if answer:
                self.send(answer)
            if request.command == DPR and request.flags & 0x80:
                return


class Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads = True, True


def main():
    parser = argparse.ArgumentParser()
    for name in ("--listen", "--identity", "--realm", "--radius"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    listener = Listener((host, int(port)), Link)
    listener.swm = Server(options)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(listener.swm.command(line.strip())), flush=True)


main()
