"""Show a run in a browser: files of the page, and the document that all open pages share."""
