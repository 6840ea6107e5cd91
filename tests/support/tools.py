"""The DICOM programs that tests run as real peers: their paths, and their packages.

``python -m tests.support.tools`` prints the Debian packages that are missing, for scripts/test.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
PLUGIN_DIRECTORIES = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc")

PROGRAMS = {"orthanc": "Orthanc"}
"""Programs whose file has another name than the test uses."""

PACKAGES = {
    "orthanc": "orthanc",
    "orthanc-dicomweb": "orthanc-dicomweb",
    "storescp": "dcmtk",
    "storescu": "dcmtk",
    "dcmqrscp": "dcmtk",
    "dcmqridx": "dcmtk",
    "dcmconv": "dcmtk",
    "dcmsend": "dcmtk",
    "dcmrecv": "dcmtk",
    "dcmdump": "dcmtk",
    "dcmftest": "dcmtk",
    "dciodvfy": "dicom3tools",
    "dump2dcm": "dcmtk",
    "echoscu": "dcmtk",
    "findscu": "dcmtk",
    "getscu": "dcmtk",
    "movescu": "dcmtk",
    "npm": "npm",
}
"""The Debian package that each comes with."""


def find(tool: str) -> str | None:
    """Return the path of a program, or of Orthanc's DICOMweb plugin; None where it is missing."""
    if tool == "orthanc-dicomweb":
        plugins = (Path(each).glob("**/libOrthancDicomWeb.so*") for each in PLUGIN_DIRECTORIES)
        return next((str(path) for found in plugins for path in found), None)
    directories = [*os.environ.get("PATH", "").split(os.pathsep), *SYSTEM_DIRECTORIES]
    # pynetdicom's own storescp and the like, in a virtual environment, are not DCMTK's.
    elsewhere = (each for each in directories if Path(each) != Path(sys.prefix, "bin"))
    return shutil.which(PROGRAMS.get(tool, tool), path=os.pathsep.join(elsewhere))


def how_to_install(tool: str) -> str:
    """Return a sentence about a missing program."""
    package = PACKAGES.get(tool)
    advice = f"apt install {package}, or scripts/test" if package else "install it"
    return f"{tool} is not installed: {advice}"


if __name__ == "__main__":
    print(*sorted({package for tool, package in PACKAGES.items() if find(tool) is None}))
