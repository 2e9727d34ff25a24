"""The HTTP interface of a run and the web server that serves it."""
