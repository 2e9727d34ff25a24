"""How much of a processor the server takes for what devices upload, beside nginx and other web servers."""
