"""``gkt plan``: time, bytes and cost of deployments larger than this machine, on paper."""
