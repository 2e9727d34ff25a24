"""What a poisoned device costs a run, with the server's quarantine and without."""
