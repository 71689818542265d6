"""Interop runs of real IKEv2 peers against swugate; Python's standard library only."""
