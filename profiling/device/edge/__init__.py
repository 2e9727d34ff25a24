"""``gkt profile edge``: what training costs the very device it runs on. Needs neither torch nor psutil."""
