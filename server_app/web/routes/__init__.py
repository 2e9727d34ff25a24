"""Answer HTTP requests, a module per concern; every endpoint is described in server_app/web/operations.py."""
