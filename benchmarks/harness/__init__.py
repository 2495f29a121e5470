"""What the benchmarks share: processes measured together, the machine's own limits, tables, the last line."""
