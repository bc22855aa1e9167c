"""Files of users: images, masks, DICOM, volumes, landmarks, and which file belongs to which."""
