"""``gkt reproduce``: the paper's tables and figures, rerun, with the paper's numbers beside ours."""
