"""``gkt profile browser``: a step in a page's worker and in Node, beside Python's portable engine."""
