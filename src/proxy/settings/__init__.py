"""The settings: their schema, their sources, and their errors.

This package is a leaf and does not know the use of a setting. The program calls :func:`load` once.
"""

from proxy.settings.load import SettingsError, load
from proxy.settings.reference import in_force, reference, reference_page
from proxy.settings.schema import (
    DicomSettings,
    DispatchSettings,
    IthSettings,
    LimitSettings,
    LocalSettings,
    LogSettings,
    ServiceSettings,
    Settings,
)
from proxy.settings.secret import Secret
from proxy.settings.sources import state_directory
from proxy.settings.state import prepare

__all__ = [
    "DicomSettings",
    "DispatchSettings",
    "IthSettings",
    "LimitSettings",
    "LocalSettings",
    "LogSettings",
    "Secret",
    "ServiceSettings",
    "Settings",
    "SettingsError",
    "in_force",
    "load",
    "prepare",
    "reference",
    "reference_page",
    "state_directory",
]
