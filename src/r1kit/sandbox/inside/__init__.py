"""What runs on the inside of a sandbox: sent there as text, so every module uses the standard library only."""
