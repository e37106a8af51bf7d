#!/usr/bin/env python3
"""Looks the installed packages up among known vulnerabilities: pip-audit, with the OSV service.

Exits 1 where one is found, and where pip-audit fails. Where the service is out of reach it says
that nothing was looked up, and exits 0. Options go to pip-audit: `--ignore-vuln ID`, for example.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KNOWN = "jinja2==2.4.1"
"""A version whose vulnerabilities every such service knows: it tells one that answers from none."""


def look_up(*options: str) -> tuple[list[dict[str, Any]], str]:
    """Packages as pip-audit describes them, empty where it failed; and what it said besides."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv"]
    command += ["--format", "json", "--progress-spinner", "off", *sys.argv[1:], *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1) or "No module named pip_audit" in done.stderr:
        sys.exit(f"audit: pip-audit cannot be used.\n{done.stderr}")
    try:
        return json.loads(done.stdout)["dependencies"], done.stderr
    except ValueError:  # it ended with a traceback
        return [], done.stderr


def is_answered() -> bool:
    """Whether the service knows what it must know."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{KNOWN}\n")
        found, _ = look_up("--disable-pip", "--no-deps", "--requirement", str(requirements))
    return any(package.get("vulns") for package in found)


def main() -> int:
    """Print what was found; the exit code."""
    if not is_answered():
        print("audit: SKIPPED. The advisory service is out of reach: no package was looked up.")
        return 0
    packages, said = look_up()
    if not packages:
        sys.exit(f"audit: pip-audit failed.\n{said}")
    for package in packages:
        if "skip_reason" in package:
            print(f"audit: not looked up: {package['skip_reason']}")
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        for each in package["vulns"]:
            fixed = ", ".join(each["fix_versions"]) or "no version"
            print(f"audit: {package['name']} {package['version']}: {each['id']}, fixed in {fixed}")
    print(f"audit: {len(packages)} packages looked up, {len(vulnerable)} of them vulnerable.")
    return bool(vulnerable)


if __name__ == "__main__":
    sys.exit(main())
