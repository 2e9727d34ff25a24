"""The HTTP interface, a module per concern. Paths stand in :mod:`gkt_core.wire.protocol`."""
