"""The local PACS: the DICOM objects on this machine, their index and their files."""
