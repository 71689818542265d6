"""Carries the datagrams of a UDP 4500 IKEv2 peer over an RFC 9329 TCP stream, and can damage it.

    python3 -m harness.shim originate --udp 10.97.0.1:4500 --tcp 10.98.0.1:4500
        in front of an initiator: opens the connection, sends the prefix, opens a new one with the
        next datagram when it has gone.
    python3 -m harness.shim accept --tcp 10.98.0.1:4500 --udp 127.0.0.1:4500
        in front of a responder: takes connections, answers on the one that spoke last.

What UDP 4500 carries is what a frame carries: ESP, or four zero octets and an IKE message.  One-octet
NAT keepalives stay behind.  Commands come on standard input, one a line, and are answered with one:

    split N      write the stream in pieces of N octets (0: whole frames)
    coalesce MS  hold frames back and write them together every MS milliseconds (0: at once)
    fin | rst    close or reset the connection, at a frame boundary
    cut          write half of the next frame, then close the connection
    stats        counters as JSON
"""
import argparse
import json
import selectors
import socket
import struct
import sys
import time

PREFIX = b"IKETCP"
FRAME_MAX = 0xFFFF
UNSENT_MAX = 1 << 20            # beyond it datagrams are lost, as in any full queue


class Stream:
    """One TCP connection: frames out with the faults asked for, frames in."""

    def __init__(self, sock, faults, counters, expects_prefix, forget):
        self.sock, self.faults, self.counters, self.forget = sock, faults, counters, forget
        self.out, self.held, self.flush_at = bytearray(), bytearray(), None
        self.input, self.expects_prefix, self.open = bytearray(), expects_prefix, True
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, body):
        """Queues one frame, or loses it when too much is waiting."""
        if len(self.out) + len(self.held) > UNSENT_MAX or len(body) + 2 > FRAME_MAX:
            self.counters["lost"] += 1
            return
        self.counters["frames_out"] += 1
        frame = struct.pack("!H", len(body) + 2) + body
        if self.faults["cut"]:
            self.faults["cut"] = False
            self.out += self.held + frame[:len(frame) // 2]
            self.write()
            self.close()
        elif self.faults["coalesce"]:
            self.held += frame
            if self.flush_at is None:
                self.flush_at = time.monotonic() + self.faults["coalesce"] / 1000
        else:
            self.out += frame
            self.write()

    def flush(self):
        self.out += self.held
        self.held.clear()
        self.flush_at = None
        self.write()

    def write(self):
        """Writes what the socket takes, in one send() per piece."""
        try:
            while self.out and self.open:
                piece = self.out[:self.faults["split"]] if self.faults["split"] else self.out
                del self.out[:self.sock.send(piece)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def frames(self):
        """Reads what is there; yields the body of every complete frame."""
        try:
            octets = self.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self.close()
            return
        self.input += octets
        if self.expects_prefix:
            if len(self.input) < len(PREFIX):
                return
            if self.input[:len(PREFIX)] != PREFIX:
                self.counters["bad"] += 1
                self.reset()
                return
            del self.input[:len(PREFIX)]
            self.expects_prefix = False
        while len(self.input) >= 2:
            length = self.input[0] << 8 | self.input[1]
            if length < 2:
                self.counters["bad"] += 1
                self.reset()
                return
            if len(self.input) < length:
                return
            body = bytes(self.input[2:length])
            del self.input[:length]
            self.counters["frames_in"] += 1
            yield body

    def close(self):
        if self.open:
            self.open = False
            self.forget(self)
            self.sock.close()

    def reset(self):
        if self.open:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()


class Shim:
    """The event loop: one datagram socket, one current stream, commands."""

    def __init__(self, role, udp, tcp):
        self.role, self.tcp_address = role, tcp
        self.faults = {"split": 0, "coalesce": 0, "cut": False}
        self.counters = dict.fromkeys(("connections", "frames_out", "frames_in", "lost", "bad"), 0)
        self.streams, self.current, self.peer, self.listener = set(), None, None, None
        self.selector = selectors.DefaultSelector()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.udp.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        if role == "originate":
            self.udp.bind(udp)
        else:
            self.peer = udp
            self.listener = socket.create_server(tcp)
            self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.udp.setblocking(False)
        self.selector.register(self.udp, selectors.EVENT_READ, self.datagrams)
        self.selector.register(sys.stdin, selectors.EVENT_READ, self.command)

    def originate(self):
        """Opens a connection to the responder; None when it refuses."""
        try:
            sock = socket.create_connection(self.tcp_address, timeout=5)
        except OSError:
            return None
        stream = self.adopt(sock, expects_prefix=False)
        stream.out += PREFIX
        stream.write()
        return stream

    def accept(self):
        self.adopt(self.listener.accept()[0], expects_prefix=True)

    def adopt(self, sock, expects_prefix):
        self.counters["connections"] += 1
        stream = Stream(sock, self.faults, self.counters, expects_prefix, self.forget)
        self.streams.add(stream)
        self.selector.register(sock, selectors.EVENT_READ, lambda: self.receive(stream))
        return stream

    def forget(self, stream):
        """Called before a stream closes its socket, whose number may serve again at once."""
        self.streams.discard(stream)
        self.selector.unregister(stream.sock)

    def receive(self, stream):
        for body in stream.frames():
            if self.role == "accept":
                self.current = stream
            if self.peer and body and body != b"\xff":
                try:
                    self.udp.sendto(body, self.peer)
                except OSError:
                    self.counters["lost"] += 1

    def writable(self, sock):
        for stream in list(self.streams):
            if stream.sock is sock:
                stream.write()

    def datagrams(self):
        for _ in range(64):
            try:
                body, sender = self.udp.recvfrom(FRAME_MAX)
            except (BlockingIOError, ConnectionRefusedError):
                return
            if self.role == "originate":
                self.peer = sender
                if not (self.current and self.current.open):
                    self.current = self.originate()
            if body == b"\xff":
                continue
            if self.current and self.current.open:
                self.current.send(body)
            else:
                self.counters["lost"] += 1

    def command(self):
        words = sys.stdin.readline().split()
        if not words:
            sys.exit(0)                        # the harness has gone
        if words[0] == "stats":
            print(json.dumps(self.counters), flush=True)
            return
        if words[0] in ("split", "coalesce"):
            self.faults[words[0]] = int(words[1])
        elif words[0] == "cut":
            self.faults["cut"] = True
        elif words[0] == "fin" and self.current:
            self.current.flush()
            self.current.close()
        elif words[0] == "rst" and self.current:
            self.current.reset()
        print("ok", flush=True)

    def run(self):
        print("ready", flush=True)
        while True:
            timeout = None
            for stream in self.streams:
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if stream.out else 0)
                key = self.selector.get_key(stream.sock)
                if key.events != events:
                    self.selector.modify(stream.sock, events, key.data)
                if stream.flush_at is not None:
                    timeout = max(0, stream.flush_at - time.monotonic())
            for key, events in self.selector.select(timeout):
                if events & selectors.EVENT_WRITE:
                    self.writable(key.fileobj)
                if events & selectors.EVENT_READ and key.fileobj.fileno() >= 0:
                    key.data()
            for stream in list(self.streams):
                if stream.flush_at is not None and stream.flush_at <= time.monotonic():
                    stream.flush()


def endpoint(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=["originate", "accept"])
    parser.add_argument("--udp", type=endpoint, required=True)
    parser.add_argument("--tcp", type=endpoint, required=True)
    options = parser.parse_args()
    Shim(options.role, options.udp, options.tcp).run()
