"""Puts tunnel gateways beside each other on the same path."""
