"""Speed and accuracy, measured by commands; nothing here runs with the test suite."""

import os

# Read once, when torch is loaded, so before any benchmark imports it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
