"""report.html of a run, the README's picture of it, and the table for the terminal."""

from r1kit.dashboard.curve import curve_svg
from r1kit.dashboard.report import write_report
from r1kit.dashboard.run_data import ReportError
from r1kit.dashboard.terminal import terminal_table

__all__ = ["ReportError", "curve_svg", "terminal_table", "write_report"]
