"""The rounds of a run as pure state machines: no Flask, no torch, no database, no clock."""
