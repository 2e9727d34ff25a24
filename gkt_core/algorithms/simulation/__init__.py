"""Devices that exist in one process: their data, their engine, their uploads."""
