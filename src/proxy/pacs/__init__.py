"""The local PACS: what is known of the DICOM objects on this machine, and where they are."""
