"""What ``gkt doctor`` looks at on a server: its port, certificate, database, secrets, disk and memory."""
