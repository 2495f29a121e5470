"""What runs inside the measuring processes: ours and the peers, behind `prepare(order)` and `run()`."""
