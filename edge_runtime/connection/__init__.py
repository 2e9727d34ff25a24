"""What lies between a device and its server: proxies, portals, certificates, and what they answer."""
