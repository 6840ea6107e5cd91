"""The DICOM dispatch proxy of ITH: told by events, it stores imaging sessions at a site's nodes."""

from importlib.metadata import version

__version__ = version("ith-proxy")
