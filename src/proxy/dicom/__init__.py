"""The DICOM sending side: associations we request, C-STORE and C-ECHO over them."""
