"""The half of the judge that runs inside the sandbox. These files are sent there as text: standard library only."""
