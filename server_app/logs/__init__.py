"""Write what a server and its trainer say to one place, in one format, and who asked for what."""
