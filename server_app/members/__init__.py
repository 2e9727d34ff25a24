"""Who belongs to a run: enrolments, links, secrets, revocation."""
