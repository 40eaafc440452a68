"""What leaves this machine: exports, cards and pushes."""
