"""Fixtures of the tests of the TypeScript device."""

from tests.edge_runtime.hostile_fixtures import honest, template
from tests.edge_runtime.javascript.node_package import gkt_edge
from tests.server_app.served import serve
from tests.server_app.server_fixtures import empty_run, narrow_bundle, server_bundle

__all__ = ["empty_run", "gkt_edge", "honest", "narrow_bundle", "serve", "server_bundle", "template"]
