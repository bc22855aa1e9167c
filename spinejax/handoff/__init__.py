"""Results in the formats of other programs: masks, markups, tables, DICOM."""
